"""A program of somebody else's that follows server-sent events: `events.py URL`.

Prints the contents that came before the message `end` as one JSON list.
"""

import json
import sys

import httpx
from httpx_sse import connect_sse


def follow(url):
    contents, last_id = [], None
    while True:
        headers = {"Last-Event-ID": last_id} if last_id else {}
        try:
            with httpx.Client(timeout=20) as client, connect_sse(client, "GET", url, headers=headers) as source:
                for event in source.iter_sse():
                    if event.event == "created":
                        content = event.json()["message"]["content"]
                        if content == "end":
                            return contents
                        contents.append(content)
                    elif event.event == "reset":
                        sys.exit(event.data)
                    last_id = event.id or last_id
        except httpx.TransportError as error:
            print(error, file=sys.stderr)


print(json.dumps(follow(sys.argv[1])))
