/* Ranks what a search finds: words of the query in a page's title count, lists of everything do not.

The numbers are Sphinx's own (searchtools.js), which knows nothing of how many words a title has. */
var Scorer = {
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,

  /* Titles share a word with the query if they begin alike: "filters" and "filtering". */
  score: ([page, title, anchor, , score, , kind]) => {
    const common = /^(a|an|and|for|from|how|in|is|not|of|on|or|some|the|to|with)?$/;
    const words = (text) =>
      text.toLowerCase().split(/[^\p{L}\p{N}]+/u).filter((word) => !common.test(word));
    const stem = (word) => word.slice(0, Math.max(3, Math.min(word.length, 7) - 2));
    const query = words(new URLSearchParams(window.location.search).get("q") ?? "");
    const known = words(title);
    const shared = query.filter((a) => known.some((b) => stem(a) === stem(b))).length;
    const listing = /^about\/(changelog|references|measured|contributing|CODE)/.test(page);
    const guide = /^(start|tutorials|coming-from)\/|^[^/]*$/.test(page);
    return (
      score +
      (20 * shared) / Math.max(query.length, 1) +
      (10 * shared) / Math.max(known.length, 1) +
      (guide ? 2 : 0) +
      (page === "start/troubleshooting" ? 3 : 0) -
      (listing ? 15 : 0) -
      (kind === "object" ? 20 : 0)
    );
  },
};
