const BOX_WIDTH = 21;
/** What the programs send, each arrow in the width of the longest. */
const ARROWS = [
  [' reports ', ' ──────▶ '],
  [' writes  ', ' ──────▶ '],
  ['', ' ◀── kubectl'],
];

/** Draws which programs of the demo connect to which, as four lines of text. */
export function drawPicture(options: {
  readonly reporters: number;
  /** Per reporter. */
  readonly tunnels: number;
  readonly grpcAddress: string;
}): string {
  const boxes = [
    [`${options.reporters} Envoys, simulated`, `${options.tunnels} tunnels each`],
    ['operator', `gRPC ${options.grpcAddress}`],
    ['Kubernetes API', 'one object per tunnel'],
  ];
  const edge = '─'.repeat(BOX_WIDTH + 2);
  const gap = ' '.repeat(ARROWS[0]?.[0]?.length ?? 0);
  const content = (line: number): string =>
    boxes
      .map((texts, box) => `│ ${(texts[line] ?? '').padEnd(BOX_WIDTH)} │${ARROWS[box]?.[line] ?? ''}`)
      .join('');
  return [
    boxes.map(() => `┌${edge}┐`).join(gap),
    content(0),
    content(1),
    boxes.map(() => `└${edge}┘`).join(gap),
  ]
    .map((line) => `  ${line}`)
    .join('\n');
}
