/** Every attack that can go on until it is told to stop. */
import type { Attack } from './attack.ts';
import { CONNECTION_FLOODS } from './connection-floods.ts';
import { FRAME_FLOODS } from './frame-floods.ts';
import { HELD_MEMORY } from './held-memory.ts';
import { STREAM_FLOODS } from './stream-floods.ts';

export const ATTACKS: readonly Attack[] = [
  ...FRAME_FLOODS,
  ...STREAM_FLOODS,
  ...HELD_MEMORY,
  ...CONNECTION_FLOODS,
];
