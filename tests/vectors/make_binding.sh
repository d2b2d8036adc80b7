#!/usr/bin/env bash
# Writes binding.json with nothing but printf and openssl: a second implementation of strongroom/evidence/binding.py.
set -euo pipefail

be64() { printf "\\x$(printf %016x "$1" | sed 's/../&\\x/g; s/\\x$//')"; }
enc() { be64 "$(stat -c %s "$1")"; cat "$1"; }
hash() { openssl dgst "-$1" -binary; }
hex() { od -An -v -tx1 | tr -d ' \n'; }

cd "$(mktemp -d)"
printf 'channel' >purpose
printf 'a challenge of thirty-two bytes.' >challenge
printf 'pretend this is DER' >key
: >nothing
printf 'exporter, thirty-two bytes long.' >exporter

head -c 48 /dev/zero >head
event() {
  printf '%s' "$1" >name; printf '%s' "$2" >payload
  { printf 'strongroom/event/v1\0'; enc name; enc payload; } | hash sha384 >digest
  cat head digest | hash sha384 >next && mv next head
}
event model '{"epoch":3,"name":"tiny"}'
event boot-done '{}'

{ printf 'strongroom/rd/v1'
  { enc purpose; enc challenge; enc key; enc nothing; enc head; } | hash sha384; } >report_data
hash sha256 <key >key_sha256
{ printf 'strongroom/gpu-nonce/v1\0'; enc challenge; enc key_sha256; } | hash sha256 >gpu_nonce
{ printf 'strongroom/channel-challenge/v1\0'; enc challenge; enc exporter; } | hash sha256 >channel
{ printf 'strongroom/certificate-challenge/v1\0'; be64 29885940; } >certificate
{ printf 'strongroom/receipt-challenge/v1\0'; be64 29885940; } >receipt
{ printf '{"nonce":"abc","tee-pubkey":{"kty":"EC"}}' | hash sha384; } >kbs

cat <<JSON
{
  "challenge": "$(hex <challenge)",
  "key": "$(hex <key)",
  "exporter": "$(hex <exporter)",
  "not_before": 1793156400,
  "head": "$(hex <head)",
  "report_data": "$(hex <report_data)",
  "gpu_nonce": "$(hex <gpu_nonce)",
  "channel_challenge": "$(hex <channel)",
  "certificate_challenge": "$(hex <certificate)",
  "receipt_challenge": "$(hex <receipt)",
  "kbs_digest": "$(hex <kbs)"
}
JSON
