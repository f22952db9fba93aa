#!/bin/sh
# Sends a message with curl, then shows what anybody writes, one line of JSON each, until it is stopped:
#   sh curl.sh
server=${SERVER:-http://127.0.0.1:3000}

# Where the stream is before the message, so that it is seen, too.
cursor=$(curl -sSf "$server/api/messages?room=general&limit=1" | sed 's/.*"cursor":"\([^"]*\)".*/\1/')

curl -sSf -o /dev/null "$server/api/messages" -H 'Content-Type: application/json' \
  -d '{"room": "general", "sender": "Carla", "content": "Hola desde curl"}'

# Server-sent events: `event:` names what happened, `data:` is the frame.
curl -sSN "$server/api/events?room=general&after=$cursor" | sed -un 's/^data: \(.*"type":"created".*\)/\1/p'
