// What @phala/dstack-sdk gets from the key socket, as one JSON object: node dstack.cjs DSTACK.sock TAPPD.sock PATH
const { DstackClient, TappdClient } = require("@phala/dstack-sdk");

const hex = (bytes) => Buffer.from(bytes).toString("hex");

async function main(dstack, tappd, path) {
  const client = new DstackClient(dstack);
  const said = {};
  const key = await client.getKey(path, "signing");
  said.key = hex(key.key);
  said.chain = key.signature_chain.map(hex);
  said.ed25519 = hex((await client.getKey(path, "signing", "ed25519")).key);
  said.many = (await Promise.all(Array.from({ length: 20 }, (_, n) => client.getKey(`${path}/${n}`)))).map((k) => hex(k.key));
  const tls = [await client.getTlsKey({ subject: "a.example", altNames: ["a.example"], usageRaTls: true }), await client.getTlsKey()];
  said.tls = tls.map((t) => ({ key: t.key, chain: t.certificate_chain, octets: t.asUint8Array().length }));
  const quote = await client.getQuote("some data");
  said.quote = { report_data: quote.report_data, bytes: quote.quote.length / 2, rtmrs: quote.replayRtmrs() };
  said.attestation = (await client.attest("some data")).attestation;
  const info = await client.info();
  said.info = info;
  said.version = await client.version();
  said.reachable = await client.isReachable();
  const data = Buffer.from("what is signed");
  for (const algorithm of ["ed25519", "secp256k1"]) {
    const made = await client.sign(algorithm, data);
    const right = await client.verify(algorithm, data, made.signature, made.public_key);
    const wrong = await client.verify(algorithm, Buffer.from("other"), made.signature, made.public_key);
    said[`signed_${algorithm}`] = [right.valid, wrong.valid, made.signature_chain.length];
  }
  const old = new TappdClient(tappd);
  said.tappd = {
    reachable: await old.isReachable(),
    key: (await old.deriveKey(path)).key,
    quote: (await old.tdxQuote("some data", "sha512")).quote.length / 2,
  };
  // The SDK looks at no status: a refusal is an object without the members it wants.
  try {
    await client.getKey("nobody.service/x", "a:b");
    said.refused = null;
  } catch (error) {
    said.refused = String(error.message ?? error);
  }
  return said;
}

main(...process.argv.slice(2)).then(
  (said) => console.log(JSON.stringify(said)),
  (error) => { console.error(error); process.exit(1); },
);
