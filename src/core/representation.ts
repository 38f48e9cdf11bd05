/** The forms in which a tunnel is written: as a ReverseTunnel object, or as an entry of a ReverseTunnelSlice. */
export const REPRESENTATIONS = ['objects', 'slices'] as const;
export type Representation = (typeof REPRESENTATIONS)[number];
