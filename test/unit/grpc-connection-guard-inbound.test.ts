import { expect } from 'chai';
import * as fc from 'fast-check';
import { InboundFrames, type InboundFramesOptions } from '../../src/grpc/connection-guard-inbound.ts';
import { END_STREAM, FRAME, frame, grpcMessage, openingFrame, PADDED } from '../support/raw-http2.ts';

const MAX_MESSAGE_BYTES = 100_000;

interface Reader {
  readonly frames: InboundFrames;
  /** What the peer makes the process hold, as told. */
  readonly held: () => number;
  readonly streams: () => number;
  /** Reads it all, in pieces that end at `cuts`. */
  readonly read: (bytes: Buffer, cuts?: readonly number[]) => void;
}

function reader(other: Partial<InboundFramesOptions> = {}): Reader {
  let held = 0;
  let streams = 0;
  const frames = new InboundFrames({
    maxMessageSizeBytes: MAX_MESSAGE_BYTES,
    onBufferedChange: (change) => (held += change),
    onStreamCountChange: (change) => (streams += change),
    ageSeconds: () => 0,
    ...other,
  });
  return {
    frames,
    held: () => held,
    streams: () => streams,
    read(bytes, cuts = []) {
      const ends = [...new Set([...cuts.map((cut) => cut % (bytes.length + 1)), bytes.length])];
      let from = 0;
      for (const end of ends.toSorted((a, b) => a - b)) {
        const piece = bytes.subarray(from, end);
        for (let at = 0; at < piece.length;) at = frames.readFrame(piece, at);
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

describe('what a connection makes the operator hold', () => {
  it('is the message that is not whole yet, and no more once it has been dealt with', () => {
    const { read, held, frames } = reader();
    read(openingFrame(1));
    const opened = held();
    const message = grpcMessage(Buffer.alloc(1000));
    read(frame(FRAME.data, 0, 1, message.subarray(0, 600)));
    expect(held() - opened).to.be.within(600, 1000);
    read(frame(FRAME.data, 0, 1, message.subarray(600)));
    expect(held() - opened).to.be.above(1005);
    frames.messageDone(1);
    expect(held()).to.equal(opened);
  });

  it('counts each whole message until it has been dealt with, oldest first', () => {
    const { read, held, frames } = reader();
    read(openingFrame(1));
    const opened = held();
    read(
      frame(
        FRAME.data,
        0,
        1,
        Buffer.concat([grpcMessage(Buffer.alloc(5000)), grpcMessage(Buffer.alloc(10))]),
      ),
    );
    frames.messageDone(1);
    expect(held() - opened).to.be.within(10, 5000);
    frames.messageDone(1);
    expect(held()).to.equal(opened);
    frames.messageDone(1);
    expect(held()).to.equal(opened);
  });

  it('is nothing once the stream is gone: reset by the peer, by the server, or ended by both', () => {
    for (const end of [
      ({ read }: Reader) => read(frame(FRAME.rstStream, 0, 1, Buffer.alloc(4))),
      ({ frames }: Reader) => frames.streamReset(1),
      ({ read, frames }: Reader) => {
        frames.serverEnded(1);
        read(frame(FRAME.data, END_STREAM, 1));
      },
      ({ read, frames }: Reader) => {
        read(frame(FRAME.data, END_STREAM, 1));
        frames.serverEnded(1);
      },
    ]) {
      const one = reader();
      one.read(
        Buffer.concat([
          openingFrame(1),
          frame(FRAME.data, 0, 1, grpcMessage(Buffer.alloc(50)).subarray(0, 20)),
        ]),
      );
      expect(one.held()).to.be.above(0);
      expect(one.streams()).to.equal(1);
      end(one);
      expect(one.held()).to.equal(0);
      expect(one.streams()).to.equal(0);
    }
  });

  it('does not count what gRPC drops: a message over the limit, and what comes after the answer', () => {
    const { read, held, frames } = reader();
    read(openingFrame(1));
    read(frame(FRAME.data, 0, 1, grpcMessage(Buffer.alloc(0), MAX_MESSAGE_BYTES + 1)));
    const before = held();
    read(frame(FRAME.data, 0, 1, Buffer.alloc(10_000)));
    expect(held()).to.equal(before);
    read(openingFrame(3));
    frames.serverEnded(3);
    const answered = held();
    read(frame(FRAME.data, 0, 3, Buffer.alloc(10_000)));
    expect(held()).to.equal(answered);
  });

  it('does not depend on how the bytes are cut, nor on padding', () => {
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
            const made: Buffer[] = [];
            for (let at = 0; at < message.length; at += frameBytes) {
              const payload = message.subarray(at, at + frameBytes);
              made.push(
                padding === undefined
                  ? frame(FRAME.data, 0, stream, payload)
                  : padded(stream, payload, padding),
              );
            }
            return made;
          });
          const bytes = Buffer.concat([openingFrame(1), openingFrame(3), openingFrame(5), ...frames]);
          const [whole, cut] = [reader(), reader()];
          whole.read(bytes);
          cut.read(bytes, cuts);
          expect(cut.held()).to.equal(whole.held());
          expect(cut.frames.violation).to.equal(whole.frames.violation);
          // As many messages as were sent, on each stream, and nothing else.
          const opened = reader();
          opened.read(Buffer.concat([openingFrame(1), openingFrame(3), openingFrame(5)]));
          for (const { stream } of parts) cut.frames.messageDone(stream);
          expect(cut.held()).to.equal(opened.held());
        },
      ),
    );
  });

  it('grows with each frame, so that a message in frames of one byte is cut early', () => {
    const { read, frames } = reader();
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

  it('may be a large report in frames as flow control cuts them', () => {
    const { read, frames } = reader({ maxMessageSizeBytes: 20_000_000 });
    read(openingFrame(1));
    const message = grpcMessage(Buffer.alloc(13_000_000));
    // 16 KiB and the rest of a window of 65,535, over and over.
    for (let at = 0; at < message.length; at += 65_535) {
      const window = message.subarray(at, at + 65_535);
      for (let from = 0; from < window.length; from += 16_384) {
        read(frame(FRAME.data, 0, 1, window.subarray(from, from + 16_384)));
      }
    }
    expect(frames.violation).to.equal(undefined);
  });

  it("frames that carry no report are limited by the connection's age", () => {
    let ageSeconds = 0;
    const { read, frames } = reader({ ageSeconds: () => ageSeconds });
    const ping = frame(FRAME.ping, 0, 0, Buffer.alloc(8));
    for (let i = 0; i < 10_000; i += 1) read(ping);
    expect(frames.violation).to.equal(undefined);
    ageSeconds = 60;
    for (let i = 0; i < 50_000; i += 1) read(ping);
    expect(frames.violation).to.equal(undefined);
    for (let i = 0; i < 20_000; i += 1) read(ping);
    expect(frames.violation).to.equal('control_frames');
  });
});
