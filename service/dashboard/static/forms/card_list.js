// A list of similar cards in a form, which the user can add and remove.

import { actionButton } from "../components/buttons.js";
import { actions } from "../components/layout.js";
import { fill, h } from "../lib/dom.js";
import { cardHead, stack } from "./layout.js";

export class CardList {
  #list = h("div", { class: "choice" });
  #titles = new Map();

  /**
   * @param {string} addTitle title of the button that adds a card
   * @param {object} options
   * @param {(values: object | undefined) => object} options.make makes a card: `content`, `value()`, `showErrors()`
   * @param {(position: number, count: number) => string} options.title title of the card at a position
   * @param {() => void} options.onChange called when the user adds or removes a card
   */
  constructor(addTitle, { make, title, onChange }) {
    Object.assign(this, { make, title, onChange, cards: [] });
    const add = actionButton(addTitle, async () => {
      this.add();
      onChange();
    });
    this.element = stack(this.#list, actions(add));
  }

  /** Add a card with the given values, or with its defaults. */
  add(values) {
    const card = this.make(values);
    const title = h("span");
    card.element = h(
      "div",
      { class: "card" },
      cardHead(title, () => this.#remove(card)),
      card.content,
    );
    this.#titles.set(card, title);
    this.cards.push(card);
    this.#show();
  }

  #remove(card) {
    this.cards.splice(this.cards.indexOf(card), 1);
    this.#titles.delete(card);
    this.#show();
    this.onChange();
  }

  #show() {
    this.cards.forEach((card, position) => fill(this.#titles.get(card), this.title(position, this.cards.length)));
    fill(
      this.#list,
      this.cards.map((card) => card.element),
    );
  }

  values() {
    return this.cards.map((card) => card.value());
  }

  /** The cards by their places in the request, such as `tasks/0`. */
  parts(name) {
    return Object.fromEntries(this.cards.map((card, position) => [`${name}/${position}`, card]));
  }
}
