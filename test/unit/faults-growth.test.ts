import { expect } from 'chai';
import { estimateGrowth } from '../faults/real/growth.ts';

describe('growth over time', () => {
  const minutes = Array.from({ length: 40 }, (_, minute) => minute);

  it('is zero when only the number of streams varies', () => {
    const seen = minutes.map((minute) => {
      const load = 10 + ((minute * 7) % 11);
      return { hours: minute / 60, load, value: 30 + load / 5 };
    });
    const { perHour } = estimateGrowth(seen);
    expect(perHour).to.be.closeTo(0, 1e-6);
  });

  it('is found despite varying streams and noise, with its standard error', () => {
    const seen = minutes.map((minute) => {
      const load = 10 + ((minute * 7) % 11);
      const noise = ((minute * 13) % 17) / 17 - 0.5;
      return { hours: minute / 60, load, value: 30 + load / 5 + 3 * (minute / 60) + noise / 5 };
    });
    const { perHour, error } = estimateGrowth(seen);
    expect(perHour).to.be.closeTo(3, 4 * error);
    expect(error).to.be.within(0.001, 0.5);
  });

  it('is found when the load is constant', () => {
    const seen = minutes.map((minute) => ({ hours: minute / 60, load: 10, value: 30 + minute / 6 }));
    expect(estimateGrowth(seen).perHour).to.be.closeTo(10, 1e-6);
  });

  it('is not estimated from too few observations', () => {
    const seen = minutes.slice(0, 4).map((minute) => ({ hours: minute, load: 1, value: minute }));
    expect(estimateGrowth(seen).perHour).to.be.NaN;
  });
});
