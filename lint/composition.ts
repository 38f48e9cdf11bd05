/**
 * Linter rules for a composition that is built in one direction: each statement uses only what is declared above it,
 * and nothing is bound late. Loaded by oxlint as a plugin (`jsPlugins` in `.oxlintrc.json`).
 */

/** The part of an ESTree node that the rules read. */
interface Node {
  readonly type: string;
  readonly [property: string]: unknown;
}

interface RuleContext {
  readonly options: readonly unknown[];
  report(finding: { readonly node: Node; readonly message: string }): void;
}

type Visitor = Readonly<Record<string, (node: Node) => void>>;

const RUNTIME_VALUES: ReadonlySet<string> = new Set(['CallExpression', 'NewExpression', 'AwaitExpression']);

/** Limits the arrow functions of a file; the option is the limit. */
const maxArrowFunctions = {
  meta: { schema: [{ type: 'integer', minimum: 0 }] },
  create(context: RuleContext): Visitor {
    const max = Number(context.options[0]);
    let count = 0;
    return {
      ArrowFunctionExpression(node) {
        count += 1;
        if (count <= max) return;
        context.report({
          node,
          message: `At most ${max} arrow functions: pass objects instead of callbacks.`,
        });
      },
    };
  },
};

/**
 * Rejects `const x: T = create(…)` within a function: an annotation that only repeats what the call returns is a sign that the type
 * cannot be inferred because the declaration refers to a later one.
 */
const noAnnotatedConstruction = {
  create(context: RuleContext): Visitor {
    return {
      VariableDeclarator(node) {
        const declaration = node['parent'] as Node;
        if ((declaration['parent'] as Node).type === 'Program') return;
        const id = node['id'] as Node;
        const init = node['init'] as Node | null;
        if (id['typeAnnotation'] == null || init === null || !RUNTIME_VALUES.has(init.type)) return;
        context.report({
          node,
          message: 'Let the type be inferred; if it cannot be, the composition is circular.',
        });
      },
    };
  },
};

/** Rejects `object.onEvent = …`: callbacks are passed when the object is constructed, or added as a listener. */
const noCallbackAssignment = {
  create(context: RuleContext): Visitor {
    return {
      AssignmentExpression(node) {
        const { type, object, property } = node['left'] as Node;
        if (type !== 'MemberExpression' || (object as Node).type === 'ThisExpression') return;
        if (!/^on[A-Z]/.test(String((property as Node)['name']))) return;
        context.report({ node, message: 'Pass the callback to the constructor, or add it as a listener.' });
      },
    };
  },
};

export default {
  meta: { name: 'composition' },
  rules: {
    'max-arrow-functions': maxArrowFunctions,
    'no-annotated-construction': noAnnotatedConstruction,
    'no-callback-assignment': noCallbackAssignment,
  },
};
