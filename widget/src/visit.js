// A visit's token, where the server gives them: fetched when a request needs it, kept for this tab, and renewed before
// it ends. Knows no page.

const RENEWED_AT = 0.8; // of its life
const AT_ONCE = 500; // hashes that the browser computes side by side

export class Visit {
  #key;
  #address;
  #visit = null;
  #beginning = null;

  /** `base` is the folder that widget.js was loaded from. */
  constructor(base) {
    this.#key = `rag-chat:${base}:visit`;
    this.#address = new URL("visit", base);
    try {
      this.#visit = JSON.parse(sessionStorage.getItem(this.#key));
    } catch {
      // Storage is forbidden, or holds something else: the page alone remembers.
    }
  }

  /** Whether this tab had one before. */
  get kept() {
    return this.#visit !== null;
  }

  /** What a request says of it; nothing where there is none, and the server tells what is missing. */
  async headers() {
    const age = Date.now() - (this.#visit?.begun ?? 0);
    if (!this.#visit || !(age >= 0 && age < this.#visit.lifeMs)) this.#visit = await this.#begin();
    else if (age > RENEWED_AT * this.#visit.lifeMs) this.#begin(); // Aside: the old one still holds.
    return this.#visit ? { Authorization: `Bearer ${this.#visit.token}` } : {};
  }

  /** The server did not want it. */
  drop() {
    this.#visit = null;
  }

  #begin() {
    this.#beginning ??= this.#begun()
      .catch(() => null)
      .then((visit) => {
        this.#beginning = null;
        if (visit) this.#keep(visit);
        return visit;
      });
    return this.#beginning;
  }

  async #begun() {
    let response = await this.#post({});
    if (response.status === 428) response = await this.#post({ proof: await solved((await response.json()).proof) });
    if (!response.ok) return null;
    const { token } = await response.json();
    // Its life, and not the moment of its end: the clocks of browsers are wrong by hours.
    const { iat, exp } = JSON.parse(atob(token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/")));
    return { token, begun: Date.now(), lifeMs: (exp - iat) * 1000 };
  }

  #post(body) {
    const headers = { "Content-Type": "application/json" };
    return fetch(this.#address, { method: "POST", headers, body: JSON.stringify(body) });
  }

  #keep(visit) {
    this.#visit = visit;
    try {
      sessionStorage.setItem(this.#key, JSON.stringify(visit));
    } catch {
      // As above.
    }
  }
}

/** The challenge with the number whose hash behind the salt it is. Only pages with https can compute it. */
async function solved({ algorithm, challenge, salt, signature, maxnumber }) {
  const hashOf = async (number) => {
    const hash = await crypto.subtle.digest(algorithm, new TextEncoder().encode(salt + number));
    return Array.from(new Uint8Array(hash), (byte) => byte.toString(16).padStart(2, "0")).join("");
  };
  for (let first = 0; first <= maxnumber; first += AT_ONCE) {
    const numbers = Array.from({ length: AT_ONCE }, (_, place) => first + place);
    const place = (await Promise.all(numbers.map(hashOf))).indexOf(challenge);
    if (place >= 0) return { algorithm, challenge, salt, signature, number: numbers[place] };
  }
  return null;
}
