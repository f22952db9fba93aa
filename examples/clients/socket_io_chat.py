"""Follows a room with python-socketio and sends a message to it. It comes back by itself and misses nothing.

pip install 'python-socketio[asyncio-client]'
python socket_io_chat.py
"""

import asyncio
import os
import re
import sys

import socketio

cursor = None  # the place in the stream, for when the connection breaks
# Not `Client`, which runs every handler in a thread of its own: what comes in a burst would be shown in any order.
client = socketio.AsyncClient()
# With an id of one's own, 24 hexadecimal digits, a message is stored once.
MESSAGE_ID = os.urandom(12).hex()


def plain(text):
    """What others write must not steer this terminal, nor begin a line in the name of somebody else."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]", "\ufffd", text)


def say_refusal(answer):
    if "problem" in answer:
        print(plain(f"refused: {answer['problem']['detail']}"), file=sys.stderr)


@client.event
async def connect():
    await client.emit("subscribe", {"room": "general"}, callback=say_refusal)


@client.on("ready")
async def ready(frame):
    """Comes after each reconnection."""
    keep(frame)
    message = {"room": "general", "sender": "Pía", "content": "Hola desde Python", "id": MESSAGE_ID}
    await client.emit("message", message, callback=say_refusal)


# What must stay in order is not `async`: a handler that waits lets the next one begin.
@client.on("created")
def created(frame):
    print(plain(f"{frame['message']['sender']}: {frame['message']['content']}"), flush=True)
    keep(frame)


@client.on("*")
def other(name, frame):
    if name == "reset":
        print("some messages may be missing: load GET /api/messages?room=general")
    keep(frame)


def keep(frame):
    global cursor
    cursor = frame.get("cursor", cursor)


async def main():
    await client.connect(os.environ.get("SERVER", "http://127.0.0.1:3000"), auth=lambda: {"after": cursor})
    await client.wait()


asyncio.run(main())
