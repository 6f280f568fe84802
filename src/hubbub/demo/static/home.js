import { connect } from "./live.js";
import { forget, signIn, user } from "./session.js";
import { $, header, messageOf } from "./ui.js";

header();
if (user()) {
  connect();
} else {
  forget();
  $("status").dataset.state = "idle";
  $("status-text").textContent = "Not signed in";
  $("name").focus();
  $("sign-in").addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      await signIn($("name").value);
      location.assign(next());
    } catch (error) {
      $("problem").textContent = messageOf(error);
    }
  });
}

/** Returns where to go next: only to a page of this app, whatever the address says. */
function next() {
  const wanted = new URLSearchParams(location.search).get("next") ?? "";
  return /^\/(chat(\?room=[a-z0-9-]+)?|posts|dashboard|board)$/.test(wanted) ? wanted : "/chat";
}
