/** A word or phrase that the project avoids, and what to write instead. */
export interface ProseRule {
  /** Identifies the rule in `ALLOWED_TEXTS`. */
  readonly name: string;
  /**
   * Regular expression for whole words, matched without regard to case. A blank also matches a line break with the
   * comment marks around it.
   */
  readonly pattern: string;
  /** Printed as the suggestion. */
  readonly suggestion: string;
  /** Only at the beginning of a text or of a sentence, with this case. */
  readonly sentenceStart?: true;
}

/** Text that may contain a word that a rule avoids. */
export interface AllowedText {
  readonly rule: string;
  /** A path relative to the root of the repository, or the beginning of one. Default: every file. */
  readonly path?: string;
  /** Text that must contain the word; matched without regard to case. Default: any text. */
  readonly text?: string;
  readonly reason: string;
}

const UNIT = '(?:second|minute|hour|day|row|object|tick|run|line|connection|stream|reporter)';
const COUNT = '(?:\\d[\\d,.]*|once|twice|times)';
/** Words before "a second" that show that it does not mean "per second". */
const NOT_PER =
  'of|in|for|from|with|to|as|is|by|than|after|before|on|and|or|when|at|per|about|within|not|take|takes|need|needs';

export const PROSE_RULES: readonly ProseRule[] = [
  { name: 'anew', pattern: 'anew', suggestion: 'again, or a verb with re-' },
  { name: 'any more', pattern: 'any ?more', suggestion: 'no longer' },
  { name: 'be had', pattern: 'be had', suggestion: 'be acquired, be read' },
  { name: 'beside', pattern: 'beside', suggestion: 'next to, in addition to' },
  { name: 'by hand', pattern: 'by hand', suggestion: 'manually' },
  { name: 'comes of age', pattern: '(?:comes?|came) of age', suggestion: 'reaches its maximum age' },
  {
    name: 'else',
    pattern: '(?<!(?:thing|body|one|where|what|who|or) )else(?! if)',
    suggestion: 'otherwise',
  },
  { name: 'for ever', pattern: 'for ever', suggestion: 'forever' },
  { name: 'goes on', pattern: '(?:goes|went|going) on', suggestion: 'continue' },
  { name: 'hand tool', pattern: 'hand(?:-| )tools?', suggestion: 'CLI command' },
  { name: 'heal', pattern: 'heal(?:s|ed)?', suggestion: 'revert, reconcile, recover' },
  { name: 'heard', pattern: 'heard|unheard|spoken', suggestion: 'received, reported' },
  {
    name: 'is no',
    pattern:
      '(?<!there )(?:is|are|was|were) no(?! (?:longer|more|less|later|older|newer|fewer|faster|other|such)\\b)',
    suggestion: 'is not a',
  },
  {
    name: 'is to',
    pattern: '(?:is|are|was|were|has|have|had) to be|(?:are|were) to(?= [a-z])(?! (?:the|a|an|this)\\b)',
    suggestion: 'must, should, will',
  },
  { name: 'knock', pattern: 'knock(?:s|ed|ing)?', suggestion: 'probe' },
  { name: 'look', pattern: 'look(?:s|ed|ing)? (?:at|again)', suggestion: 'check, poll, scan, read' },
  { name: 'mend', pattern: 'mend(?:s|ed|ing)?', suggestion: 'fix' },
  { name: 'mistake', pattern: 'mistakes?', suggestion: 'error' },
  {
    name: 'nobody',
    pattern: '(?:no|some|every|any)body(?!-)',
    suggestion: 'the noun: client, peer, user, caller',
  },
  { name: 'once more', pattern: 'once more', suggestion: 'again' },
  {
    name: 'per',
    pattern: `${COUNT}(?: (?!(?:${NOT_PER})\\b)[\\w%-]+){0,2} a ${UNIT}(?! (?:of|stream|replica|reporter)\\b)`,
    suggestion: 'per',
  },
  {
    name: 'quarrel',
    pattern: 'quarrel\\w*|fought over|(?:trade|trading) places|peace',
    suggestion: 'contention, contended, flap, stable',
  },
  { name: 'refuse', pattern: 'refus(?:e|es|ed|ing|als?)', suggestion: 'reject, rejection' },
  { name: 'rightful', pattern: 'rightful(?:ly)?', suggestion: 'valid, permitted' },
  { name: 'row', pattern: 'rows?', suggestion: 'object, ReverseTunnel' },
  { name: 'said', pattern: 'says|said', suggestion: 'report, state, return, contain' },
  { name: 'self-made', pattern: 'self-made', suggestion: 'self-signed' },
  { name: 'set aside', pattern: 'sets? aside', suggestion: 'reject' },
  {
    name: 'so long',
    pattern: '(?:for|after|in|of|within|than|by|with|one|without) so (?:long|many|much|often)',
    suggestion: 'this long, up to N',
  },
  { name: 'takes turns', pattern: 'takes? turns', suggestion: 'alternate, are scheduled round-robin' },
  {
    name: 'told',
    pattern: '(?:told|tells)(?! (?:\\S+ ){0,4}apart)',
    suggestion: 'log, report, return, notify',
  },
  { name: 'whom', pattern: 'whom|whoever|whomever', suggestion: 'the noun: client, peer, user, caller' },
  {
    name: 'fragment',
    pattern: 'Of (?:a|an|one|the|those|each|several|two|all|what|its)|By (?:what|its|name|number)|Not so|Who',
    suggestion: 'a whole sentence with a subject',
    sentenceStart: true,
  },
];

export const ALLOWED_TEXTS: readonly AllowedText[] = [
  { rule: 'else', path: 'docs/gitops.md', reason: 'a keyword of Lua' },
  { rule: 'row', text: 'in a row', reason: 'means "consecutively"' },
  { rule: 'row', text: '"type": "row"', reason: 'panel type of Grafana' },
  { rule: 'row', path: 'test/unit/chart-dashboard.test.ts', reason: 'panel type of Grafana' },
  { rule: 'row', path: 'test/faults/alerts/dashboard-image.ts', reason: 'panel type of Grafana' },
  { rule: 'row', path: 'test/faults/alerts/dashboard-main.ts', reason: 'panel type of Grafana' },
];
