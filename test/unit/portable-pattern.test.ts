import { expect } from 'chai';
import { quote } from '../../src/core/text.ts';
import { findNonPortable } from '../support/portable-pattern.ts';

describe('the check for portable patterns', () => {
  for (const pattern of [
    '^$|^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$',
    String.raw`^(0|([0-9]+(\.[0-9]+)?(ms|s|m|h))+)$`,
    String.raw`^([0-9.]+|\[[0-9a-fA-F:.]+\])$`,
    '^(?:[^\\x00-\\x1f\\x7f-\\x9f\u2027-\u202f\u2066-\u2069]|[\u2027\u202f])*$',
    '^(?:é|日本|😀){1,1000}$',
  ]) {
    it(`accepts ${quote(pattern)}`, () => {
      expect(findNonPortable(pattern)).to.equal(undefined);
      expect(() => new RegExp(pattern, 'u')).not.to.throw();
    });
  }

  for (const [pattern, problem] of [
    [String.raw`^[^\x{2028}]*$`, 'class with an escape'],
    [String.raw`^\x{2028}$`, '"\\\\x{2"'],
    [String.raw`^[\u2028]$`, 'class with an escape'],
    [String.raw`^\u2028$`, '"\\\\u20"'],
    [String.raw`^\d+$`, '"\\\\d+$"'],
    [String.raw`^[\w.]+$`, 'class with an escape'],
    [String.raw`^a\b`, '"\\\\b"'],
    [String.raw`\Aa\z`, '"\\\\Aa\\\\"'],
    [String.raw`^(a)\1$`, '"\\\\1$"'],
    [String.raw`^\-$`, '"\\\\-$"'],
    ['^[^\u2028]*$', 'literal line break'],
    ['^[^\u202e]*$', 'literal line break'],
    ['^a\n$', 'literal line break'],
    ['^.*$', '".*$"'],
    ['^(?=a)a$', '"(?=a"'],
    ['^(?!a)b$', '"(?!a"'],
    ['^(?i)a$', '"(?i)"'],
    ['^(?P<name>a)$', '"(?P<"'],
    ['^a+?$', 'quantifier'],
    ['^a++$', 'quantifier'],
    ['^*a$', 'quantifier'],
    ['^a{1,1001}$', 'too many repetitions'],
    ['^a{,3}$', '"{,3}"'],
    ['^[[:alpha:]]$', 'class with a character'],
    ['^[a&&b]$', 'class with a character'],
    ['^[a--b]$', 'class with a character'],
    ['^[]a]$', 'unclosed class'],
    ['^[a$', 'unclosed class'],
    ['^(a$', 'unclosed group'],
    ['^a)$', 'unopened group'],
    ['^a]$', '"]$"'],
    ['^a}$', '"}$"'],
  ] as const) {
    it(`rejects ${quote(pattern)}`, () => {
      expect(findNonPortable(pattern)).to.include(problem);
    });
  }
});
