import { type KeyboardEvent, type SubmitEvent, useId, useState } from "react";

/** A text and a button. A text that could not be sent stays in the box, with the reason below. */
export function Composer({ label, send }: { label: string; send: (text: string) => Promise<unknown> }) {
  const id = useId();
  const [text, setText] = useState("");
  const [isSending, setSending] = useState(false);
  const [problem, setProblem] = useState("");

  async function submit(event: SubmitEvent) {
    event.preventDefault();
    if (isSending || !text.trim()) return;
    setSending(true);
    try {
      await send(text);
      setText("");
      setProblem("");
    } catch (error) {
      setProblem(`Not sent: ${(error as Error).message}`);
    } finally {
      setSending(false);
    }
  }

  function key(event: KeyboardEvent<HTMLTextAreaElement>) {
    if (event.key !== "Enter" || event.shiftKey || event.nativeEvent.isComposing) return;
    event.preventDefault();
    event.currentTarget.form?.requestSubmit();
  }

  return (
    <form className="composer" onSubmit={submit}>
      <label htmlFor={id}>{label}</label>
      <textarea id={id} rows={2} maxLength={2000} value={text} onChange={(e) => setText(e.target.value)} onKeyDown={key} />
      <button disabled={isSending}>{isSending ? "Sending…" : "Send"}</button>
      <p role="alert">{problem}</p>
    </form>
  );
}
