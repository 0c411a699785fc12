// Requests to the server that sent this page. The address carries the token; changes need it in the header as well.

const token = location.pathname.split("/")[1];
export const base = new URL(`/${token}/`, location.origin);

/** The server answered, and said why not. */
export class Refusal extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

async function request(path, options = {}) {
  let answer;
  try {
    answer = await fetch(new URL(path, base), { cache: "no-store", ...options });
  } catch {
    throw new Refusal("The server does not answer. Is geosam view still running?", 0);
  }
  if (answer.ok) return answer.json();
  const said = await answer.json().catch(() => ({}));
  throw new Refusal(typeof said.detail === "string" ? said.detail : `The server refused (${answer.status}).`, answer.status);
}

export const get = (path) => request(path);

export const post = (path, body = {}) =>
  request(path, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-Geosam-Token": token },
    body: JSON.stringify(body),
  });
