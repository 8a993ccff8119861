/** Server-sent events, from bytes in pieces of any length. */

export interface ServerEvent {
  name: string;
  /** What its JSON says. */
  data: any;
}

/** Comments, which only keep a connection alive, are left out. */
export async function* parseEvents(pieces: AsyncIterable<Uint8Array>): AsyncGenerator<ServerEvent, void> {
  const decoder = new TextDecoder();
  let rest = "";
  let name = "message";
  let data: string[] = [];
  for await (const piece of pieces) {
    const lines = (rest + decoder.decode(piece, { stream: true })).split("\n");
    rest = lines.pop() ?? "";
    for (const end of lines) {
      const line = end.replace(/\r$/, "");
      const colon = line.indexOf(":");
      const field = colon < 0 ? line : line.slice(0, colon);
      const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
      if (line === "") {
        if (data.length > 0) yield { name, data: JSON.parse(data.join("\n")) };
        name = "message";
        data = [];
      } else if (field === "event") name = value;
      else if (field === "data") data.push(value);
    }
  }
}
