/**
 * Slices share the queue and the workers of tunnels, so that whatever concerns the waiting writes of a reporter counts
 * both. The queue item of a slice is named by its object, after a character that no tunnel name contains.
 */
const PREFIX = '\0';

/** Returns the name of the queue item of a slice. */
export function sliceItemName(sliceName: string): string {
  return PREFIX + sliceName;
}

/** Returns the object name of a slice from the name of its queue item; undefined for the item of a tunnel. */
export function sliceNameOf(itemName: string): string | undefined {
  return itemName.startsWith(PREFIX) ? itemName.slice(PREFIX.length) : undefined;
}
