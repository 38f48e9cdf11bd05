import { expect } from 'chai';
import * as fc from 'fast-check';
import { InboundFrames, type InboundFramesOptions } from '../../src/grpc/connection-guard-inbound.ts';
import { END_STREAM, FRAME, frame, grpcMessage, openingFrame, PADDED } from '../support/raw-http2.ts';

const MAX_MESSAGE_BYTES = 100_000;

interface Harness {
  readonly frames: InboundFrames;
  /** The sum of the reported changes of buffered bytes. */
  readonly buffered: () => number;
  /** The sum of the reported changes of the stream count. */
  readonly streams: () => number;
  /** Reads all bytes, in chunks that end at `cuts`. */
  readonly read: (bytes: Buffer, cuts?: readonly number[]) => void;
}

function createHarness(overrides: Partial<InboundFramesOptions> = {}): Harness {
  let buffered = 0;
  let streams = 0;
  const frames = new InboundFrames({
    maxMessageSizeBytes: MAX_MESSAGE_BYTES,
    onBufferedChange: (change) => (buffered += change),
    onStreamCountChange: (change) => (streams += change),
    ageMs: () => 0,
    ...overrides,
  });
  return {
    frames,
    buffered: () => buffered,
    streams: () => streams,
    read(bytes, cuts = []) {
      const ends = [...new Set([...cuts.map((cut) => cut % (bytes.length + 1)), bytes.length])];
      let from = 0;
      for (const end of ends.toSorted((a, b) => a - b)) {
        const chunk = bytes.subarray(from, end);
        for (let at = 0; at < chunk.length;) at = frames.readFrame(chunk, at);
        from = end;
      }
    },
  };
}

function padded(streamId: number, payload: Buffer, padding: number): Buffer {
  return frame(
    FRAME.data,
    PADDED,
    streamId,
    Buffer.concat([Buffer.from([padding]), payload, Buffer.alloc(padding)]),
  );
}

describe('InboundFrames', () => {
  it('charges for an incomplete message, and releases it once it has been processed', () => {
    const { read, buffered, frames } = createHarness();
    read(openingFrame(1));
    const opened = buffered();
    const message = grpcMessage(Buffer.alloc(1000));
    read(frame(FRAME.data, 0, 1, message.subarray(0, 600)));
    expect(buffered() - opened).to.be.within(600, 1000);
    read(frame(FRAME.data, 0, 1, message.subarray(600)));
    expect(buffered() - opened).to.be.above(1005);
    frames.messageDone(1);
    expect(buffered()).to.equal(opened);
  });

  it('charges for each complete message until it has been processed, oldest first', () => {
    const { read, buffered, frames } = createHarness();
    read(openingFrame(1));
    const opened = buffered();
    read(
      frame(
        FRAME.data,
        0,
        1,
        Buffer.concat([grpcMessage(Buffer.alloc(5000)), grpcMessage(Buffer.alloc(10))]),
      ),
    );
    frames.messageDone(1);
    expect(buffered() - opened).to.be.within(10, 5000);
    frames.messageDone(1);
    expect(buffered()).to.equal(opened);
    frames.messageDone(1);
    expect(buffered()).to.equal(opened);
  });

  it('releases a stream that is reset by the peer or the server, or ended by both', () => {
    for (const end of [
      ({ read }: Harness) => read(frame(FRAME.rstStream, 0, 1, Buffer.alloc(4))),
      ({ frames }: Harness) => frames.streamReset(1),
      ({ read, frames }: Harness) => {
        frames.serverEnded(1);
        read(frame(FRAME.data, END_STREAM, 1));
      },
      ({ read, frames }: Harness) => {
        read(frame(FRAME.data, END_STREAM, 1));
        frames.serverEnded(1);
      },
    ]) {
      const harness = createHarness();
      harness.read(
        Buffer.concat([
          openingFrame(1),
          frame(FRAME.data, 0, 1, grpcMessage(Buffer.alloc(50)).subarray(0, 20)),
        ]),
      );
      expect(harness.buffered()).to.be.above(0);
      expect(harness.streams()).to.equal(1);
      end(harness);
      expect(harness.buffered()).to.equal(0);
      expect(harness.streams()).to.equal(0);
    }
  });

  it('does not charge for data that grpc-js discards', () => {
    const { read, buffered, frames } = createHarness();
    read(openingFrame(1));
    read(frame(FRAME.data, 0, 1, grpcMessage(Buffer.alloc(0), MAX_MESSAGE_BYTES + 1)));
    const before = buffered();
    read(frame(FRAME.data, 0, 1, Buffer.alloc(10_000)));
    expect(buffered()).to.equal(before);
    read(openingFrame(3));
    frames.serverEnded(3);
    const afterResponse = buffered();
    read(frame(FRAME.data, 0, 3, Buffer.alloc(10_000)));
    expect(buffered()).to.equal(afterResponse);
  });

  it('does not depend on chunk boundaries or padding', () => {
    const part = fc.record({
      stream: fc.constantFrom(1, 3, 5),
      bytes: fc.nat(3000),
      frameBytes: fc.integer({ min: 1, max: 2000 }),
      padding: fc.option(fc.nat(255), { nil: undefined }),
    });
    fc.assert(
      fc.property(
        fc.array(part, { minLength: 1, maxLength: 8 }),
        fc.array(fc.nat(), { maxLength: 40 }),
        (parts, cuts) => {
          const frames = parts.flatMap(({ stream, bytes, frameBytes, padding }) => {
            const message = grpcMessage(Buffer.alloc(bytes, 7));
            const messageFrames: Buffer[] = [];
            for (let at = 0; at < message.length; at += frameBytes) {
              const payload = message.subarray(at, at + frameBytes);
              messageFrames.push(
                padding === undefined
                  ? frame(FRAME.data, 0, stream, payload)
                  : padded(stream, payload, padding),
              );
            }
            return messageFrames;
          });
          const bytes = Buffer.concat([openingFrame(1), openingFrame(3), openingFrame(5), ...frames]);
          const [unsplit, split] = [createHarness(), createHarness()];
          unsplit.read(bytes);
          split.read(bytes, cuts);
          expect(split.buffered()).to.equal(unsplit.buffered());
          expect(split.frames.violation).to.equal(unsplit.frames.violation);
          // Processing every message releases everything that was charged after the streams were opened.
          const opened = createHarness();
          opened.read(Buffer.concat([openingFrame(1), openingFrame(3), openingFrame(5)]));
          for (const { stream } of parts) split.frames.messageDone(stream);
          expect(split.buffered()).to.equal(opened.buffered());
        },
      ),
    );
  });

  it('charges per frame, and reports a message in frames of one byte as a violation', () => {
    const { read, frames } = createHarness();
    read(openingFrame(1));
    read(frame(FRAME.data, 0, 1, grpcMessage(Buffer.alloc(0), 50_000)));
    let sent = 0;
    while (frames.violation === undefined && sent < 50_000) {
      read(frame(FRAME.data, 0, 1, Buffer.from([0])));
      sent += 1;
    }
    expect(frames.violation).to.equal('small_frames');
    expect(sent).to.be.below(1100);
  });

  it('accepts a large report in frames that are split by flow control', () => {
    const { read, frames } = createHarness({ maxMessageSizeBytes: 20_000_000 });
    read(openingFrame(1));
    const message = grpcMessage(Buffer.alloc(13_000_000));
    // Frames of 16 KiB, and a smaller one at the end of each window of 65,535 bytes.
    for (let at = 0; at < message.length; at += 65_535) {
      const window = message.subarray(at, at + 65_535);
      for (let from = 0; from < window.length; from += 16_384) {
        read(frame(FRAME.data, 0, 1, window.subarray(from, from + 16_384)));
      }
    }
    expect(frames.violation).to.equal(undefined);
  });

  it("limits control frames by the connection's age", () => {
    let ageMs = 0;
    const { read, frames } = createHarness({ ageMs: () => ageMs });
    const ping = frame(FRAME.ping, 0, 0, Buffer.alloc(8));
    for (let i = 0; i < 10_000; i += 1) read(ping);
    expect(frames.violation).to.equal(undefined);
    ageMs = 60_000;
    for (let i = 0; i < 50_000; i += 1) read(ping);
    expect(frames.violation).to.equal(undefined);
    for (let i = 0; i < 20_000; i += 1) read(ping);
    expect(frames.violation).to.equal('control_frames');
  });

  it('report when the first and the last byte of an incomplete message were received', () => {
    let ageMs = 1000;
    const { read, frames } = createHarness({ ageMs: () => ageMs });
    read(openingFrame(1));
    expect(frames.messageProgress(1)).to.equal(undefined);
    const message = grpcMessage(Buffer.alloc(100));
    read(frame(FRAME.data, 0, 1, message.subarray(0, 3)));
    expect(frames.messageProgress(1)).to.deep.equal({ firstByteMs: 1000, lastByteMs: 1000 });
    ageMs = 5000;
    read(frame(FRAME.data, 0, 1, message.subarray(3, 50)));
    expect(frames.messageProgress(1)).to.deep.equal({ firstByteMs: 1000, lastByteMs: 5000 });
    ageMs = 6000;
    read(frame(FRAME.data, 0, 1, Buffer.concat([message.subarray(50), message.subarray(0, 10)])));
    expect(frames.messageProgress(1)).to.deep.equal({ firstByteMs: 6000, lastByteMs: 6000 });
    read(frame(FRAME.data, 0, 1, message.subarray(10)));
    expect(frames.messageProgress(1)).to.equal(undefined);
  });
});
