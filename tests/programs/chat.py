"""A program of somebody else's that follows a room with python-socketio: `chat.py URL AFTER`.

Prints the contents that came before the message `end` as one JSON list. The package reconnects by itself.
"""

import json
import sys
import threading

import socketio

url, cursor = sys.argv[1:]
contents, done = [], threading.Event()
client = socketio.Client(reconnection_delay=0.1)


@client.event
def connect():
    client.emit("subscribe", {"room": "general"})


@client.on("ready")
@client.on("position")
def keep(frame):
    global cursor
    cursor = frame["cursor"]


@client.on("created")
def created(frame):
    keep(frame)
    content = frame["message"]["content"]
    if content == "end":
        done.set()
    else:
        contents.append(content)


# Asked for at each connection: the newest cursor.
client.connect(url, auth=lambda: {"after": cursor})
if not done.wait(40):
    sys.exit(f"only {len(contents)} came")
client.disconnect()
print(json.dumps(contents))
