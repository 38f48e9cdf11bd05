/** Every attack that can go on until it is told to stop. */
import type { Attack } from './attack.ts';
import { CONNECTION_FLOODS } from './connection-floods.ts';
import { FRAME_FLOODS } from './frame-floods.ts';
import { MEMORY_EXHAUSTION } from './memory-exhaustion.ts';
import { STREAM_FLOODS } from './stream-floods.ts';

/** What a peer is tried with that wants to harm others, in the order in which they are played. */
export const ATTACKS: readonly Attack[] = [
  ...FRAME_FLOODS,
  ...STREAM_FLOODS,
  ...MEMORY_EXHAUSTION,
  ...CONNECTION_FLOODS,
];
