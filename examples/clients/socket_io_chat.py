"""Follows a room with python-socketio and sends a message to it. It comes back by itself and misses nothing.

pip install 'python-socketio[client]'
python socket_io_chat.py
"""

import os

import socketio

cursor = None  # the place in the stream, for when the connection breaks
client = socketio.Client()


@client.event
def connect():
    client.emit("subscribe", {"room": "general"})


@client.on("ready")
def ready(frame):
    keep(frame)
    message = {"room": "general", "sender": "Pía", "content": "Hola desde Python", "id": MESSAGE_ID}
    client.emit("message", message, callback=lambda answer: answer.get("problem") and print(answer["problem"]))


@client.on("created")
def created(frame):
    print(f"{frame['message']['sender']}: {frame['message']['content']}", flush=True)
    keep(frame)


@client.on("*")
def other(name, frame):
    if name == "reset":
        print("some messages may be missing: load GET /api/messages?room=general")
    keep(frame)


def keep(frame):
    global cursor
    cursor = frame.get("cursor", cursor)


# `ready` comes after each reconnection. With an id of one's own, 24 hexadecimal digits, a message is stored once.
MESSAGE_ID = os.urandom(12).hex()
client.connect(os.environ.get("SERVER", "http://127.0.0.1:3000"), auth=lambda: {"after": cursor})
client.wait()
