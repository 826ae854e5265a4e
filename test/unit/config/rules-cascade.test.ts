/** Rules of fallbacks that hold of the larger model of a cascade as well. */
import { expect, test } from 'vitest';
import { m, problems, url } from './support.ts';

test.each([
  {
    rule: 'fallbacks_fetch_no_more_media',
    broken: `models: [${m('a', url(1), ', cascade: { model: b, on_reply: { refusal: true } }, allowed_media_domains: [x]')}, ${m('b', url(2), ', allowed_media_domains: [y]')}]`,
    problems: [
      expect.stringMatching(/models\.0\.cascade\.model: has a narrower allowed_media_domains/),
    ],
    // By its length a prompt goes there at once, and what b allows counts.
    kept: `models: [${m('a', url(1), ', cascade: { model: b }, allowed_media_domains: [x]')}, ${m('b', url(2), ', allowed_media_domains: [y]')}]`,
  },
  {
    rule: 'attempts_fit_the_slot',
    broken: `retry: { max_attempts: 10 }\nmodels: [${m('a', url(1), ', cascade: { model: b, on_reply: { refusal: true } }')}, ${m('b', url(2), ', fallbacks: [c, d, e]')}, ${['c', 'd', 'e'].map((name) => m(name, url(3))).join(', ')}]`,
    problems: [
      expect.stringMatching(
        /models\.0\.cascade\.on_reply: must lead to at most 3 models, b and its fallbacks: retry\.max_attempts is of each$/,
      ),
    ],
    kept: `retry: { max_attempts: 10 }\nmodels: [${m('a', url(1), ', cascade: { model: b }')}, ${m('b', url(2), ', fallbacks: [c, d, e]')}, ${['c', 'd', 'e'].map((name) => m(name, url(3))).join(', ')}]`,
  },
])('$rule', ({ broken, problems: expected, kept }) => {
  expect(problems(broken)).toEqual(expected);
  expect(problems(kept)).toEqual([]);
});
