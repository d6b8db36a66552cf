"""What hookbridge is measured beside: a consumer for Python as a user writes it, without retry or
routing. It takes messages from a queue, 256 at a time, and posts each to a URL or publishes it,
confirmed, to another queue, as a webhook; then it acknowledges it."""

import asyncio
import json
import sys
import time
import uuid

import aio_pika
import aiohttp

PREFETCH = 256


async def main(uri, source, url=None, to=None):
    connection = await aio_pika.connect_robust(uri)
    async with connection, aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=PREFETCH)
    ) as session:
        channel = await connection.channel(publisher_confirms=True)
        await channel.set_qos(prefetch_count=PREFETCH)
        queue = await channel.get_queue(source)
        headers = {"content-type": "application/json"}

        async def post(message):
            async with message.process():
                async with session.post(url, data=message.body, headers=headers) as response:
                    response.raise_for_status()
                    await response.read()

        async def publish(message):
            async with message.process():
                identifier, kind, now = str(uuid.uuid4()), "StatusUpdate", int(time.time())
                copy = aio_pika.Message(
                    message.body,
                    delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
                    content_type="application/json",
                    message_id=identifier,
                    type=kind,
                    timestamp=now,
                    app_id="consumer",
                    headers={
                        "webhook-id": identifier,
                        "webhook-timestamp": str(now),
                        "webhook-type": kind,
                        "webhook-attempt": "1",
                    },
                )
                await channel.default_exchange.publish(copy, routing_key=to)

        await queue.consume(publish if to else post)
        await asyncio.Future()


job = json.loads(sys.argv[1])
asyncio.run(main(job["uri"], job["from"], job.get("url"), job.get("to")))
