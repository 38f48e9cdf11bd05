/** May this replica write at all? */
export interface WriteFence {
  /**
   * True while it holds its own Lease by its own clock, with time to spare, and has read all reporters since it got it.
   * Asked before each write, as a process does not know that it was stopped.
   */
  canWrite(): boolean;
  /** True while another replica, or this one, holds a live Lease; for 15 s also when it has given it up. */
  isAlive(replica: string): boolean;
  /** True while it holds a live Lease and has not given it up: what leaves it does not leave because it stops. */
  isServing(replica: string): boolean;
}
