import { type SubmitEvent, useState } from "react";
import { type Me, api } from "./desk";

export function SignIn({ onSignedIn }: { onSignedIn: (me: Me) => void }) {
  const [name, setName] = useState("");
  const [problem, setProblem] = useState("");

  function submit(event: SubmitEvent) {
    event.preventDefault();
    api<Me>("POST", "session", { name }).then(onSignedIn, ({ message }) => setProblem(message));
  }

  return (
    <main className="sign-in">
      <h1>Support desk</h1>
      <form onSubmit={submit}>
        <label htmlFor="name">Your name</label>
        <input id="name" value={name} onChange={(event) => setName(event.target.value)} autoComplete="username" required />
        <button>Sign in</button>
        <p role="alert">{problem}</p>
      </form>
      <p className="hint">Dana and Noor are agents. Everybody else is a customer.</p>
    </main>
  );
}
