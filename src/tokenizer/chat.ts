/**
 * Requests of the three chat APIs as the messages and tools that a chat template reads, as vLLM makes them
 * of what it is sent. Pure; threads of the pool.
 *
 * Images, sound and files have no text and leave nothing behind: a count of the rest is less than the engine
 * counts, never more. Undefined: what a template would make of this request is not known here.
 */

export interface Chat {
  readonly messages: readonly object[];
  readonly tools: readonly object[] | undefined;
}

type Bag = Readonly<Record<string, unknown>>;

const isBag = (value: unknown): value is Bag =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
const bags = (value: unknown): Bag[] => (Array.isArray(value) ? value.filter(isBag) : []);

/** `keepsParts`: the template reads lists of parts itself. */
export function openAiChat(body: Bag, keepsParts: boolean): Chat | undefined {
  if (!Array.isArray(body.messages) || body.continue_final_message === true) return undefined;
  const messages = bags(body.messages).map((message) => ({
    ...message,
    ...(Array.isArray(message.content) && {
      content: keepsParts ? message.content : textOfParts(message.content),
    }),
    ...(Array.isArray(message.tool_calls) && {
      tool_calls: bags(message.tool_calls).map(withParsedArguments),
    }),
  }));
  return { messages, tools: Array.isArray(body.tools) ? bags(body.tools) : undefined };
}

/** Of the Messages API. */
export function anthropicChat(body: Bag): Chat | undefined {
  if (!Array.isArray(body.messages)) return undefined;
  const messages: object[] = [];
  const system = textOfContent(body.system);
  if (system !== '') messages.push({ role: 'system', content: system });
  for (const { role, content } of bags(body.messages)) {
    const blocks = bags(content);
    for (const result of blocks.filter(({ type }) => type === 'tool_result')) {
      const { tool_use_id: id, content: text } = result;
      messages.push({ role: 'tool', tool_call_id: id, content: textOfContent(text) });
    }
    const calls = blocks
      .filter(({ type }) => type === 'tool_use')
      .map(({ id, name, input }) => ({
        id,
        type: 'function',
        function: { name, arguments: input },
      }));
    const text = textOfContent(content);
    const isEmpty = text === '' && calls.length === 0;
    if (isEmpty && blocks.length > 0) continue; // results alone
    messages.push({ role, content: text, ...(calls.length > 0 && { tool_calls: calls }) });
  }
  const tools = bags(body.tools).map(({ name, description, input_schema: parameters }) =>
    functionTool(name, description, parameters),
  );
  return { messages, tools: tools.length > 0 ? tools : undefined };
}

/** Of the Responses API. What is stored elsewhere cannot be counted here. */
export function responsesChat(body: Bag): Chat | undefined {
  if (typeof body.previous_response_id === 'string') return undefined;
  const messages: object[] = [];
  if (typeof body.instructions === 'string') {
    messages.push({ role: 'system', content: body.instructions });
  }
  if (typeof body.input === 'string') messages.push({ role: 'user', content: body.input });
  else if (!Array.isArray(body.input)) return undefined;
  for (const item of bags(body.input)) {
    const { type = 'message', role, content, name, arguments: given, output } = item;
    if (type === 'message') messages.push({ role, content: textOfContent(content) });
    else if (type === 'function_call') {
      const call = withParsedArguments({ type: 'function', function: { name, arguments: given } });
      messages.push({ role: 'assistant', content: '', tool_calls: [call] });
    } else if (type === 'function_call_output') {
      messages.push({ role: 'tool', content: textOfContent(output) });
    } else return undefined;
  }
  const tools = bags(body.tools)
    .filter(({ type }) => type === 'function')
    .map(({ name, description, parameters }) => functionTool(name, description, parameters));
  return { messages, tools: tools.length > 0 ? tools : undefined };
}

const functionTool = (name: unknown, description: unknown, parameters: unknown): object => ({
  type: 'function',
  function: { name, description, parameters },
});

/** A text, or the texts among its parts. */
function textOfContent(content: unknown): string {
  if (typeof content === 'string') return content;
  return Array.isArray(content) ? textOfParts(content) : '';
}

/** As vLLM joins the parts of a message whose template reads one text. */
function textOfParts(parts: readonly unknown[]): string {
  const texts = parts.flatMap((part) => {
    if (typeof part === 'string') return [part];
    return isBag(part) && typeof part.text === 'string' ? [part.text] : [];
  });
  return texts.join('\n');
}

/** Templates read the arguments of a call as an object; clients send them as a text. */
function withParsedArguments(call: Bag): Bag {
  const { function: called } = call;
  if (!isBag(called) || typeof called.arguments !== 'string') return call;
  try {
    return { ...call, function: { ...called, arguments: JSON.parse(called.arguments) } };
  } catch {
    return call;
  }
}
