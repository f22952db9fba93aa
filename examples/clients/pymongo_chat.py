"""Writes a message into MongoDB with pymongo, then shows what anybody writes, until it is stopped.

pip install pymongo
URI='mongodb://…' python pymongo_chat.py
"""

import os
import re
from datetime import datetime, timezone

from pymongo import MongoClient


def plain(text):
    """What others write must not steer this terminal, nor begin a line in the name of somebody else."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]", "\ufffd", text)


messages = MongoClient(os.environ["URI"]).get_default_database("corriente").messages

# First look, then write: so it sees its own message, too.
with messages.watch([{"$match": {"operationType": "insert"}}]) as inserts:
    date = datetime.now(timezone.utc)
    messages.insert_one({"content": "Hola desde pymongo", "sender": "Pablo", "room": "general", "date": date})
    for insert in inserts:
        message = insert["fullDocument"]
        print(plain(f"{message['sender']}: {message['content']}"), flush=True)
