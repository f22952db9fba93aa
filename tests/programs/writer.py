"""A program of somebody else's that writes messages with pymongo: `writer.py URI DATABASE`.

Prints the ids of what it wrote as one JSON object.
"""

import datetime
import json
import sys

from pymongo import DeleteOne, InsertOne, MongoClient, UpdateOne

uri, database = sys.argv[1:]
with MongoClient(uri, appname="pymongo-writer") as client:
    messages = client[database].messages
    date = datetime.datetime(2026, 3, 1, 12, 0, 0, 123000, tzinfo=datetime.timezone.utc)

    one = messages.insert_one({"content": "one", "sender": "Ana", "date": date}).inserted_id
    two, three, four = messages.insert_many(
        [
            {"content": "two", "sender": "Ana", "room": "dev", "extra": {"nested": [1, 2.5, None]}},
            {"content": "three", "sender": "Ana", "recipient": "Luis"},
            {"content": "four", "sender": "Luis", "recipient": None, "room": ""},
        ]
    ).inserted_ids
    messages.update_one({"_id": one}, {"$set": {"content": "one, edited"}})
    messages.replace_one({"_id": two}, {"content": "two, replaced", "sender": "Ana", "room": "dev"})
    messages.update_one({"_id": four}, {"$set": {"room": "dev"}})
    messages.update_one({"_id": three}, {"$unset": {"recipient": ""}})
    # Changes nothing, and so is no change.
    messages.update_one({"_id": one}, {"$set": {"content": "one, edited"}})
    messages.delete_one({"_id": one})
    messages.bulk_write(
        [
            InsertOne({"_id": "five", "content": "five", "sender": "José", "date": date}),
            UpdateOne({"_id": "five"}, {"$set": {"content": "five, edited"}}),
            DeleteOne({"_id": "five"}),
        ]
    )
    with client.start_session() as session, session.start_transaction():
        for n in range(3):
            messages.insert_one({"content": f"six {n}", "sender": "Ana"}, session=session)

print(json.dumps({"one": str(one), "two": str(two), "three": str(three), "four": str(four)}))
