/**
 * Returns the name of a room, from the parameters of its pattern.
 *
 * @throws TypeError if a parameter is empty, or has a ":", which only a `{parameter:path}` may have
 */
export function roomName<Pattern extends keyof LiveRooms>(
  pattern: Pattern,
  parameters: LiveRooms[Pattern]["parameters"],
): LiveRooms[Pattern]["name"] {
  const values: { [name: string]: unknown } = parameters;
  const name = pattern.replace(/\{(\w+)(:path)?\}|\[([^])\]/g, (_, key?: string, path?: string, sign?: string) => {
    if (key === undefined) return sign ?? ""; // a set of one character, such as [{]
    const value = String(values[key] ?? "");
    if (value === "" || (path === undefined && value.includes(":"))) {
      throw new TypeError(`${pattern}: ${key} is ${JSON.stringify(value)}; accepted: text without ":"`);
    }
    return value;
  });
  return name as LiveRooms[Pattern]["name"];
}
