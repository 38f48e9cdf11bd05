/** All attacks that can be repeated until they are stopped. */
import type { Attack } from '../../support/attack.ts';
import { CONNECTION_FLOODS } from './connection-floods.ts';
import { FRAME_FLOODS } from './frame-floods.ts';
import { MEMORY_EXHAUSTION } from './memory-exhaustion.ts';
import { STREAM_FLOODS } from './stream-floods.ts';

/** The attacks in the order in which they run. */
export const ATTACKS: readonly Attack[] = [
  ...FRAME_FLOODS,
  ...STREAM_FLOODS,
  ...MEMORY_EXHAUSTION,
  ...CONNECTION_FLOODS,
];
