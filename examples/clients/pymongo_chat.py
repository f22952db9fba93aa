"""Writes a message into MongoDB with pymongo, then shows what anybody writes, until it is stopped.

pip install pymongo
URI='mongodb://…' python pymongo_chat.py
"""

import os
from datetime import datetime, timezone

from pymongo import MongoClient

messages = MongoClient(os.environ["URI"]).get_default_database("corriente").messages

# First look, then write: so it sees its own message, too.
with messages.watch([{"$match": {"operationType": "insert"}}]) as inserts:
    date = datetime.now(timezone.utc)
    messages.insert_one({"content": "Hola desde pymongo", "sender": "Pablo", "room": "general", "date": date})
    for insert in inserts:
        message = insert["fullDocument"]
        print(f"{message['sender']}: {message['content']}", flush=True)
