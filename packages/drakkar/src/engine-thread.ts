/** The module of an engine's thread: the part of a `NodeHost` that runs there. */
import type { ThreadMain } from './env/env.ts';
import { NodeHost } from './nodehost.ts';
import { serveThread } from './threads/server.ts';

export const run: ThreadMain = (side, env) => {
  serveThread(side, env, (opening) => NodeHost['openPart'](opening));
};
