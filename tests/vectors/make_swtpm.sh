#!/usr/bin/env bash
# Writes swtpm.json: quotes of a software TPM by three kinds of key, made and written down without our code.
# Needs swtpm and tpm2-tools. PCRs 0-10 and 16-23 are quoted: as a list, eight values stand where others belong.
set -euo pipefail
directory=$(mktemp -d)
export TPM2TOOLS_TCTI="swtpm:port=2391"
swtpm socket --tpm2 --flags not-need-init,startup-clear --tpmstate "dir=$directory" \
  --server type=tcp,port=2391 --ctrl type=tcp,port=2392 &
tpm=$!
trap 'kill "$tpm"; rm -r "$directory"' EXIT
sleep 1
nonce=00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff
pcrs=0,1,2,3,4,5,6,7,8,9,10,16,17,18,19,20,21,22,23
hex() { od -An -v -tx1 "$1" | tr -d ' \n'; }
cd "$directory"
for pcr in 0 7 10 16 23; do
  tpm2_pcrextend "$pcr:sha256=$(printf '%064d' "$pcr")"
done
tpm2_createek -Q -c ek.ctx -G rsa -u ek.pub
tpm2_flushcontext -t
{
  printf '{\n  "nonce": "%s",\n  "quotes": [\n' "$nonce"
  separator=""
  for kind in "rsa rsassa" "rsa rsapss" "ecc ecdsa"; do
    scheme=${kind#* }
    tpm2_createak -Q -C ek.ctx -c ak.ctx -G "${kind% *}" -s "$scheme" -g sha256 -u ak.pub -f tss -n ak.name
    tpm2_flushcontext -t
    tpm2_flushcontext -l
    tpm2_quote -Q -c ak.ctx --scheme "$scheme" -l "sha256:$pcrs" -q "$nonce" -m quote -s signature -g sha256
    tpm2_flushcontext -t
    tpm2_flushcontext -l
    printf '%s    {"scheme": "%s",\n     "public": "%s",\n     "name": "%s",\n     "quote": "%s",\n     "signature": "%s"}' \
      "$separator" "$scheme" "$(hex ak.pub | cut -c5-)" "$(hex ak.name)" "$(hex quote)" "$(hex signature)"
    separator=",
"
    rm ak.ctx
  done
  printf '\n  ],\n  "pcrs": {\n'
  tpm2_pcrread "sha256:$pcrs" | sed -n 's/^ *\([0-9]*\) *: 0x\([0-9A-F]*\)$/    "\1": "\2",/p' | sed '$s/,$//' |
    tr A-F a-f
  printf '  }\n}\n'
} >swtpm.json
cat swtpm.json
