/** Channels of this process (`node:diagnostics_channel`): whoever subscribes by name hears, nobody needs the host's object. */
import { channel } from 'node:diagnostics_channel';
import type { Tracing } from '../env.ts';

export const nodeTracing: Tracing = { channel };
