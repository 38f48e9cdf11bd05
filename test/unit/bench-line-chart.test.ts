import { expect } from 'chai';
import { lineChart } from '../../bench/line-chart.ts';

describe('a line chart', () => {
  const points = [
    { x: 0, y: 0 },
    { x: 30, y: 50 },
    { x: 60, y: 100 },
  ];
  const svg = lineChart({
    title: 'Memory',
    xLabel: 'minutes',
    yLabel: 'MiB',
    lines: [{ name: 'RSS', color: '#123456', points }],
  });
  /** The texts, in the order of the document. */
  const texts = [...svg.matchAll(/<text[^>]*>([^<]*)</g)].map(([, content]) => content);

  it('has a title, names of axes and lines, and round values from 0 to the maximum', () => {
    expect(texts).to.deep.equal([
      ...['Memory', '0', '20', '40', '60', '80', '100', '0', '20', '40', '60'],
      ...['minutes', 'MiB', 'RSS'],
    ]);
  });

  it('draws points on a straight line as a straight line, from the left end to the right end', () => {
    const [, list = ''] = /points="([^"]*)"/.exec(svg) ?? [];
    const drawn = list.split(' ').map((point) => point.split(',').map(Number));
    expect(drawn).to.have.length(3);
    const [[x0 = 0, y0 = 0] = [], [x1 = 0, y1 = 0] = [], [x2 = 0, y2 = 0] = []] = drawn;
    expect(x1 - x0).to.be.closeTo(x2 - x1, 0.2);
    expect(y1 - y0).to.be.closeTo(y2 - y1, 0.2);
    expect(x2).to.be.greaterThan(x0);
    // The origin of SVG is at the top.
    expect(y2).to.be.lessThan(y0);
  });
});
