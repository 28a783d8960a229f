// The AI SDK's own client, without a page: `AbstractChat` is what `useChat` wraps, over `DefaultChatTransport`.
//
//   node talk.mjs '{"url": "http://127.0.0.1:8000", "id": "…", "steps": [{"send": "…"}, {"regenerate": true}]}'
//
// Prints one JSON object: what a page would show after the last step, and every chunk that the transport let through.
import { AbstractChat, DefaultChatTransport } from 'ai';

const { url, id, messages = [], steps } = JSON.parse(process.argv[2]);
const chunks = [];
let onDelta = () => {};

class Recording extends DefaultChatTransport {
  async sendMessages(options) {
    const stream = await super.sendMessages(options);
    return stream.pipeThrough(
      new TransformStream({
        transform(chunk, controller) {
          chunks.push(chunk);
          controller.enqueue(chunk);
          if (chunk.type === 'text-delta') onDelta();
        },
      }),
    );
  }
}

class State {
  status = 'ready';
  error = undefined;
  constructor(messages) {
    this.messages = messages;
  }
  pushMessage = (message) => this.messages.push(message);
  popMessage = () => this.messages.pop();
  replaceMessage = (index, message) => (this.messages[index] = structuredClone(message));
  snapshot = (value) => structuredClone(value);
}

class Conversation extends AbstractChat {
  constructor(state) {
    super({ id: id ?? undefined, state, transport: new Recording({ api: `${url}/api/chat` }), onError() {} });
  }
}

const state = new State(messages);
const chat = new Conversation(state);
for (const step of steps) {
  onDelta = step.stop ? () => chat.stop() : () => {};
  await (step.regenerate ? chat.regenerate() : chat.sendMessage({ text: step.send }));
}
console.log(
  JSON.stringify({
    id: chat.id,
    status: state.status,
    error: state.error?.message ?? null,
    messages: state.messages,
    chunks,
  }),
);
