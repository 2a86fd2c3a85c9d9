/** For `threads.test.ts`: sends back what it gets. */
import type { ThreadMain } from '../../src/env/env.ts';

export const run: ThreadMain = (side) => {
  side.onMessage = (message) => {
    if (message === 'throw') throw new Error('as it was told');
    side.post(message);
  };
  side.onAsk = (question) => ({ answer: question });
};
