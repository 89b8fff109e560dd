"use strict";
// The order in which one rater sees the tasks: the same for the same set and rater wherever it is drawn.

/** Return a generator of numbers in [0, 1): sfc32 (Doty-Humphrey, PractRand) seeded by four FNV-1a hashes of a text. */
function seedGenerator(text) {
  const bytes = new TextEncoder().encode(text);
  let [a, b, c, counter] = [1, 2, 3, 4].map((salt) => {
    let hash = Math.imul(0x811c9dc5 ^ salt, 0x01000193);
    for (const byte of bytes) hash = Math.imul(hash ^ byte, 0x01000193);
    return hash;
  });
  const draw = () => {
    const sum = (a + b + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (((c << 21) | (c >>> 11)) + sum) | 0;
    return (sum >>> 0) / 4294967296;
  };
  for (let i = 0; i < 20; i += 1) draw(); // until the seeds are mixed
  return draw;
}

/** Return the entries shuffled (Fisher and Yates) by a generator seeded with the set's and the rater's name. */
function shuffleFor(entries, set, rater) {
  const draw = seedGenerator(JSON.stringify([set, rater]));
  const shuffled = [...entries];
  for (let last = shuffled.length - 1; last > 0; last -= 1) {
    const chosen = Math.floor(draw() * (last + 1));
    [shuffled[last], shuffled[chosen]] = [shuffled[chosen], shuffled[last]];
  }
  return shuffled;
}
