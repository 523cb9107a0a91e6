// The page: two chats on one server, the defended model and, for who may, the base model without its defence.
import "/page/deep-chat.js";

const find = (id) => document.getElementById(id);
const escaped = (text) => text.replace(/[&<>"']/g, (sign) => `&#${sign.charCodeAt(0)};`);
const key = find("key"), compare = find("compare"), problem = find("problem");
let models = [], policy = { rules: [] };

const INSIDE = `
  details, .verdict { color: var(--ink); }
  summary { cursor: pointer; color: var(--one); }
  summary:focus-visible { outline: 2px solid var(--one); }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; font: .9em/1.45 ui-monospace, monospace; margin: .4rem 0; background: var(--back); color: var(--ink); }
  .verdict { margin: 0 0 .3rem; }
  .refuse, .comply { font-weight: 600; padding: .05rem .4rem; border-radius: 4px; }
  .problem { color: var(--ink); border-left: 3px solid var(--ink); padding-left: .4rem; }
  .refuse { background: var(--bad); } .comply { background: var(--good); }
  .rule { display: block; }
  #text-input:focus-visible, [role=button]:focus-visible { outline: 2px solid var(--one); }
  #messages:focus-visible { outline: 2px solid var(--one); outline-offset: -2px; }`;

function headers() {
  return { "Content-Type": "application/json", ...(key.value ? { Authorization: `Bearer ${key.value}` } : {}) };
}

async function ask(path) {
  const response = await fetch(path, { headers: headers() });
  const body = await response.json();
  if (!response.ok) throw new Error(body.error.message);
  return body;
}

// The thought, folded, below the verdict and each rule that it was held against.
function decision(found, thought) {
  const share = (value) => (value == null ? "?" : value.toFixed(2));
  const odds = found.probability == null ? "" : ` ${share(found.probability)}, refuses from ${share(found.threshold)}`;
  const rules = (found.rules ?? []).map((rule) => `<span class="rule">${escaped(`${rule.id} ${rule.title}`)}</span>`);
  const verdict = found.decision ?? "no verdict";
  const told = [found.intent && `Intent: ${found.intent}`, found.cause].filter(Boolean).map((one) => `<span class="rule">${escaped(one)}</span>`);
  const folded = thought ? `<details><summary>Thought</summary><pre>${escaped(thought)}</pre></details>` : "";
  return `<div class="verdict"><span class="${escaped(verdict)}">${escaped(verdict)}</span>${odds}${rules.join("")}${told.join("")}</div>${folded}`;
}

// Marks the rules of the policy that the last request was found to break.
function mark(found) {
  const broken = new Set((found.rules ?? []).map((rule) => rule.id));
  for (const title of find("rules").querySelectorAll("dt")) title.classList.toggle("broken", broken.has(title.dataset.id));
}

async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (held + value).split("\n\n");
    held = parts.pop();
    for (const part of parts) {
      const data = part.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trim()).join("");
      if (data && data !== "[DONE]") yield JSON.parse(data);
    }
  }
}

function makeChat(where, isBase) {
  const chat = document.createElement("deep-chat");
  const said = [];
  chat.style.fontFamily = "system-ui, sans-serif"; // else it asks Google for its own
  chat.chatStyle = { width: "100%", height: "100%", border: "1px solid var(--line)", borderRadius: "8px",
    backgroundColor: "var(--back)", fontSize: "inherit" };
  const bubble = (ground, ink) => ({ bubble: { backgroundColor: ground, color: ink, maxWidth: "90%" } });
  chat.messageStyles = { default: { user: bubble("var(--mine)", "#ffffff"), ai: bubble("var(--card)", "var(--ink)") }, };
  chat.textInput = { placeholder: { text: "Ask", style: { color: "var(--soft)" } },
    styles: { container: { backgroundColor: "var(--card)", border: "1px solid var(--line)", color: "var(--ink)", boxShadow: "none" }, text: { color: "var(--ink)" } } };
  chat.auxiliaryStyle = INSIDE;
  chat.remarkable = { html: false };
  if (isBase) chat.inputAreaStyle = { display: "none" };
  chat.connect = { stream: true, handler: (body, signals) => answer(chat, said, isBase, body, signals) };
  where.append(chat);
  new MutationObserver(() => name(chat, isBase)).observe(chat.shadowRoot, { childList: true, subtree: true });
  return { chat, forget: () => { said.length = 0; chat.clearMessages(); } };
}

// deep-chat leaves its parts without names for those who hear the page.
function name(chat, isBase) {
  const inside = chat.shadowRoot;
  const label = isBase ? "Conversation with the base model" : "Conversation with the defended model";
  const set = (selector, attributes) => {
    for (const part of inside.querySelectorAll(selector)) for (const [attribute, value] of Object.entries(attributes)) part.setAttribute(attribute, value);
  };
  set("#messages", { role: "log", tabindex: "0", "aria-label": label });
  set("#text-input", { role: "textbox", "aria-multiline": "true", "aria-label": "What to ask" });
  const shows = (part) => inside.querySelector(`.input-button ${part}`);
  const does = shows("#stop-icon") ? "Stop" : shows(".loading-submit-button") ? "Waiting for the verdict" : "Send";
  set(".input-button", { role: "button", tabindex: "0", "aria-label": does });
}

async function answer(chat, said, isBase, body, signals) {
  said.push({ role: "user", content: body.messages[0].text });
  const stop = new AbortController();
  signals.stopClicked.listener = () => stop.abort();
  let text = "", thought = "", found = null, isOpen = false;
  const open = () => {
    if (isOpen) return;
    isOpen = true;
    if (found || thought) chat.addMessage({ role: "ai", html: decision(found ?? {}, thought) });
    if (found) mark(found);
    signals.onOpen();
  };
  try {
    const model = models.find((one) => one.id.endsWith("-base") === isBase)?.id ?? "";
    const asked = { model, messages: said, stream: true };
    const response = await fetch("/v1/chat/completions", { method: "POST", headers: headers(), body: JSON.stringify(asked), signal: stop.signal });
    if (!response.ok) throw new Error((await response.json()).error.message);
    for await (const chunk of events(response)) {
      if (chunk.error) throw new Error(chunk.error.message);
      const delta = chunk.choices?.[0]?.delta ?? {};
      found = chunk.moderation?.verdict ?? found;
      thought += delta.reasoning ?? delta.reasoning_content ?? "";
      const piece = delta.content || delta.refusal || "";
      if (!piece) continue;
      open();
      text += piece;
      await signals.onResponse({ text: piece });
    }
    open();
    said.push({ role: "assistant", content: text });
    signals.onClose();
  } catch (error) {
    said.pop();
    if (!isOpen) signals.onOpen();
    signals.onClose();
    if (error.name !== "AbortError") chat.addMessage({ role: "ai", html: `<span class="problem" role="alert">${escaped(error.message)}</span>` });
  }
}

function show() {
  const base = models.some((one) => one.id.endsWith("-base"));
  compare.disabled = !base;
  compare.parentElement.title = base ? "" : "This server, or this key, does not offer the base model";
  find("model").textContent = models.find((one) => !one.id.endsWith("-base"))?.id ?? "";
  find("policy-name").textContent = policy.name ? `${policy.name} ${policy.version}` : "";
  find("rules").replaceChildren(...policy.rules.flatMap((rule) => {
    const title = document.createElement("dt"), text = document.createElement("dd");
    title.textContent = `${rule.id} ${rule.title}`;
    title.dataset.id = rule.id;
    text.textContent = rule.description;
    return [title, text];
  }));
}

async function begin() {
  problem.hidden = true;
  try {
    models = (await ask("/v1/models")).data;
    policy = await ask("/v1/policy");
  } catch (error) {
    problem.textContent = error.message;
    problem.hidden = false;
  }
  show();
}

const defended = makeChat(find("defended"), false);
let base = null;
defended.chat.onMessage = ({ message, isHistory }) => {
  if (!isHistory && message.role === "user" && base && compare.checked) base.chat.submitUserMessage({ text: message.text });
};
compare.addEventListener("change", () => {
  base ??= makeChat(find("base"), true);
  find("base-side").hidden = !compare.checked;
});
key.addEventListener("change", () => { sessionStorage.setItem("key", key.value); begin(); });
find("who").addEventListener("submit", (event) => event.preventDefault());
find("anew").addEventListener("click", () => { defended.forget(); base?.forget(); mark({}); defended.chat.focusInput(); });
key.value = sessionStorage.getItem("key") ?? "";
begin();
