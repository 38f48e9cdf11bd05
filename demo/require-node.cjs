/**
 * Loaded before `main.ts`, in syntax that any Node can parse: reports which Node runs the demo, and exits with code 1 if
 * that Node cannot run TypeScript.
 */
'use strict';

const REQUIRED = require('../package.json').engines.node.replace('>=', '').split('.').map(Number);

const version = process.versions.node;
const parts = version.split('.').map(Number);
const difference = REQUIRED.map((part, index) => parts[index] - part).find((part) => part !== 0) || 0;
if (difference < 0) {
  console.error(
    'demo: Node ' +
      version +
      ' (' +
      process.execPath +
      ') is too old: ' +
      REQUIRED.join('.') +
      ' is required, which `npm ci` installs for `npm run demo`',
  );
  process.exit(1);
}
console.log('Node ' + version + ' (' + process.execPath + ')');
