"""A question asked with the stock openai client over a connection pinned to one certificate."""

import ssl
from pathlib import Path
from typing import Final

import httpx2
import openai

SERVER_NAME: Final = "strongroom.example"


def ask_openai(url: str, certificate: Path, token: str, model: str, question: str) -> str:
    """The answer's text. Any other certificate than the one in `certificate` (PEM) ends the handshake."""
    pinned = ssl.create_default_context(cafile=str(certificate))
    pinned.minimum_version = ssl.TLSVersion.TLSv1_3
    pinned.check_hostname = False  # the certificate itself is pinned: a name would add nothing
    with httpx2.Client(verify=pinned) as transport:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key=token, http_client=transport)
        answer = client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": question}], max_tokens=16, temperature=0
        )
    return answer.choices[0].message.content or ""
