/** Room kept between lines; a larger block, taken for one huge line, is given back after it. */
const RETAINED_BLOCK_BYTES = 64 * 1024;

/** A line was longer than the limit, or the stream is no stream of lines at all. */
export class LineTooLongError extends Error {
  override readonly name = 'LineTooLongError';

  constructor(maxLineBytes: number) {
    super(`line exceeds ${maxLineBytes} bytes`);
  }
}

/** Takes a stream apart. */
export interface LineSplitter {
  /** The next piece. What `onLine` throws comes through, as does `LineTooLongError`; it is of no more use after either. */
  (chunk: Buffer): void;
  /** What came after the last line feed: empty when the stream may end here. */
  remainder(): string;
}

/**
 * Cuts a stream of chunks into lines of UTF-8 text and hands over each as soon as its end has come, without the line
 * feed; empty lines are left out. Each byte is copied at most twice however the stream is cut, and no chunk is held
 * on to: a small rest would keep the whole read buffer alive.
 */
export function createLineSplitter(maxLineBytes: number, onLine: (line: string) => void): LineSplitter {
  let block = Buffer.allocUnsafe(0);
  let usedBytes = 0;

  function append(chunk: Buffer, start: number, end: number): void {
    const needed = usedBytes + end - start;
    if (needed > maxLineBytes) throw new LineTooLongError(maxLineBytes);
    if (needed > block.length) {
      // Doubling: the copies of one line's beginning add up to less than the line.
      const larger = Buffer.allocUnsafe(Math.max(RETAINED_BLOCK_BYTES, 2 ** Math.ceil(Math.log2(needed))));
      block.copy(larger, 0, 0, usedBytes);
      block = larger;
    }
    chunk.copy(block, usedBytes, start, end);
    usedBytes = needed;
  }

  function takeBuffered(): string {
    const line = block.toString('utf8', 0, usedBytes);
    usedBytes = 0;
    if (block.length > RETAINED_BLOCK_BYTES) block = Buffer.allocUnsafe(0);
    return line;
  }

  const push = (chunk: Buffer): void => {
    let start = 0;
    for (let end = chunk.indexOf(0x0a); end !== -1; end = chunk.indexOf(0x0a, start)) {
      if (usedBytes === 0) {
        if (end - start > maxLineBytes) throw new LineTooLongError(maxLineBytes);
        if (end > start) onLine(chunk.toString('utf8', start, end));
      } else {
        append(chunk, start, end);
        onLine(takeBuffered());
      }
      start = end + 1;
    }
    if (start < chunk.length) append(chunk, start, chunk.length);
  };
  return Object.assign(push, { remainder: () => block.toString('utf8', 0, usedBytes) });
}
