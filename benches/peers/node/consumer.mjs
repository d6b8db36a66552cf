// What hookbridge is measured beside: a consumer for Node as a user writes it, without retry or
// routing. It takes messages from a queue, 256 at a time, and posts each to a URL or publishes it,
// confirmed, to another queue, as a webhook or as nothing but its body; then it acknowledges it.

import { randomUUID } from 'node:crypto';

import amqp from 'amqplib';
import { request } from 'undici';

const { uri, from, url, to, webhook } = JSON.parse(process.argv[2]);
const prefetch = 256;

const connection = await amqp.connect(uri);
const channel = await connection.createConfirmChannel();
await channel.prefetch(prefetch);

const headers = { 'content-type': 'application/json' };

async function post(message) {
  const { statusCode, body } = await request(url, { method: 'POST', headers, body: message.content });
  await body.dump();
  if (statusCode >= 200 && statusCode < 300) channel.ack(message);
  else channel.nack(message, false, false);
}

function properties() {
  if (!webhook) return { persistent: true };
  const [id, type, timestamp] = [randomUUID(), 'StatusUpdate', Math.floor(Date.now() / 1000)];
  return {
    persistent: true,
    mandatory: true,
    contentType: 'application/json',
    messageId: id,
    type,
    timestamp,
    appId: 'consumer',
    headers: {
      'webhook-id': id,
      'webhook-timestamp': String(timestamp),
      'webhook-type': type,
      'webhook-attempt': '1',
    },
  };
}

function publish(message) {
  channel.sendToQueue(to, message.content, properties(), (error) => {
    if (error) channel.nack(message, false, false);
    else channel.ack(message);
  });
}

await channel.consume(from, (message) => {
  if (message === null) process.exit(1);
  if (to) publish(message);
  else post(message).catch(() => channel.nack(message, false, false));
});
