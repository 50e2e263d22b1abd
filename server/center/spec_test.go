package center

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"carillon/server/center/strictjson"
)

// contract is openapi.yaml, read and compiled.
type contract struct {
	doc      map[string]any
	compiler *jsonschema.Compiler
	mu       sync.Mutex
	schemas  map[string]*jsonschema.Schema
}

const contractPath = "../../openapi.yaml"

var theContract = sync.OnceValues(func() (*contract, error) {
	text, err := os.ReadFile(contractPath)
	if err != nil {
		return nil, err
	}
	raw, err := yaml.Parser().Unmarshal(text)
	if err != nil {
		return nil, err
	}
	c := &contract{compiler: jsonschema.NewCompiler(), schemas: map[string]*jsonschema.Schema{}}
	c.compiler.AssertFormat()
	// By way of JSON, so that values have the types that a JSON document has.
	b, err := json.Marshal(c.withByteLimits(raw))
	if err != nil {
		return nil, err
	}
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(string(b)))
	if err != nil {
		return nil, err
	}
	c.doc = doc.(map[string]any)
	return c, c.compiler.AddResource("openapi.json", doc)
})

func loadContract(t testing.TB) *contract {
	t.Helper()
	c, err := theContract()
	if err != nil {
		t.Fatalf("read the contract: %v", err)
	}
	return c
}

// withByteLimits turns the contract's limits in bytes, and those of expressions over tags, into formats, which the validator knows how to check.
func (c *contract) withByteLimits(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for _, limit := range []string{"x-max-bytes", "x-max-total-bytes"} {
			if n, ok := v[limit]; ok {
				name := fmt.Sprint(limit, "-", n)
				v["format"] = name
				most := n.(int)
				c.compiler.RegisterFormat(&jsonschema.Format{Name: name, Validate: func(v any) error { return atMost(v, most) }})
			}
		}
		if terms, ok := v["x-max-terms"].(int); ok {
			levels := v["x-max-levels"].(int)
			name := fmt.Sprint("expression-", terms, "-", levels)
			v["format"] = name
			c.compiler.RegisterFormat(&jsonschema.Format{Name: name, Validate: func(v any) error { return expressionWithin(v, terms, levels) }})
		}
		for k := range v {
			v[k] = c.withByteLimits(v[k])
		}
	case []any:
		for i := range v {
			v[i] = c.withByteLimits(v[i])
		}
	}
	return v
}

// expressionWithin reports whether an expression over tags has at most so many terms and levels.
func expressionWithin(v any, terms, levels int) error {
	n, deep := 0, 0
	var walk func(v any, level int)
	walk = func(v any, level int) {
		lists, ok := v.(map[string]any)
		if !ok {
			n++
			return
		}
		deep = max(deep, level)
		for _, list := range lists {
			items, _ := list.([]any)
			for _, item := range items {
				walk(item, level+1)
			}
		}
	}
	if _, ok := v.(map[string]any); !ok {
		return nil // another rule's
	}
	walk(v, 1)
	if n > terms || deep > levels {
		return fmt.Errorf("%d terms on %d levels", n, deep)
	}
	return nil
}

func atMost(v any, most int) error {
	n := 0
	switch v := v.(type) {
	case string:
		n = len(v)
	case map[string]any:
		for name, value := range v {
			n += len(name)
			if s, ok := value.(string); ok {
				n += len(s)
			}
		}
	}
	if n > most {
		return fmt.Errorf("more than %d bytes", most)
	}
	return nil
}

// schema compiles what stands at a pointer of the contract, once.
func (c *contract) schema(t testing.TB, pointer string) *jsonschema.Schema {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	s, ok := c.schemas[pointer]
	if !ok {
		var err error
		if s, err = c.compiler.Compile("openapi.json#" + pointer); err != nil {
			t.Fatalf("compile %s: %v", pointer, err)
		}
		c.schemas[pointer] = s
	}
	return s
}

// judge returns what a schema says of a document, and reports a document that is no JSON as an error too.
func judge(s *jsonschema.Schema, document []byte) error {
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(string(document)))
	if err != nil {
		return err
	}
	return s.Validate(v)
}

// at returns what stands at a path in the contract.
func (c *contract) at(path ...string) any {
	var v any = c.doc
	for _, p := range path {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[p]
	}
	return v
}

var verbs = []string{"get", "post", "put", "patch", "delete"}

// eachOperation calls f with every operation of the contract.
func (c *contract) eachOperation(f func(path, verb string, op map[string]any)) {
	paths := c.at("paths").(map[string]any)
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		for _, verb := range verbs {
			if op, ok := paths[path].(map[string]any)[verb].(map[string]any); ok {
				f(path, verb, op)
			}
		}
	}
}

// templateOf returns the path of the contract that a request's path belongs to, empty if none.
func (c *contract) templateOf(path string) string {
	var best string
	for tmpl := range c.at("paths").(map[string]any) {
		want, got := strings.Split(tmpl, "/"), strings.Split(path, "/")
		match := len(want) == len(got)
		for i := 0; match && i < len(want); i++ {
			match = want[i] == got[i] || strings.HasPrefix(want[i], "{") && got[i] != ""
		}
		if match && (best == "" || !strings.Contains(tmpl, "{")) {
			best = tmpl
		}
	}
	return best
}

func pointerTo(path ...string) string {
	var b strings.Builder
	for _, p := range path {
		b.WriteString("/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(p))
	}
	return escapeFragment(b.String())
}

// escapeFragment escapes what may not stand in the fragment of a URL.
func escapeFragment(s string) string {
	return strings.NewReplacer("{", "%7B", "}", "%7D", " ", "%20").Replace(s)
}

var quotedCode = regexp.MustCompile("`([a-z_]+)`")

// codesOf returns the codes that the contract lists for a status of an operation.
func (c *contract) codesOf(path, verb, status string) []string {
	text, _ := c.at("paths", path, verb, "responses", status, "description").(string)
	var codes []string
	for _, m := range quotedCode.FindAllStringSubmatch(text, -1) {
		codes = append(codes, m[1])
	}
	return codes
}

func enumOf(c *contract, schema string) []string {
	var words []string
	for _, w := range c.at("components", "schemas", schema, "enum").([]any) {
		words = append(words, w.(string))
	}
	slices.Sort(words)
	return words
}

func TestContract_ListsEveryCodeThatThereIs(t *testing.T) {
	c := loadContract(t)
	var got []string
	for code := range problems {
		got = append(got, string(code))
	}
	slices.Sort(got)
	if want := enumOf(c, "ProblemCode"); !slices.Equal(got, want) {
		t.Errorf("problem codes:\n got %v\nwant %v", got, want)
	}
	got = nil
	for _, code := range strictjson.Codes() {
		got = append(got, string(code))
	}
	slices.Sort(got)
	if want := enumOf(c, "FieldErrorCode"); !slices.Equal(got, want) {
		t.Errorf("field codes:\n got %v\nwant %v", got, want)
	}
}

func TestContract_EachOperationListsCodesUnderTheirStatus(t *testing.T) {
	c := loadContract(t)
	listed := map[string]bool{"unknown_path": true, "method_not_allowed": true, "internal": true}
	c.eachOperation(func(path, verb string, op map[string]any) {
		for status := range op["responses"].(map[string]any) {
			if status[0] == '2' {
				continue
			}
			codes := c.codesOf(path, verb, status)
			if len(codes) == 0 {
				t.Errorf("%s %s: %s lists no code", verb, path, status)
			}
			for _, code := range codes {
				listed[code] = true
				if got := fmt.Sprint(problems[Code(code)].status); got != status {
					t.Errorf("%s %s: %s is listed under %s, it has %s", verb, path, code, status, got)
				}
			}
		}
	})
	for code := range problems {
		if !listed[string(code)] {
			t.Errorf("no operation lists %s", code)
		}
	}
}

func TestContract_DocumentationOfErrorsHasEveryCode(t *testing.T) {
	text, err := os.ReadFile("../../docs/api-errors.md")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| (\\d+) \\|").FindAllStringSubmatch(string(text), -1) {
		got[m[1]] = m[2]
	}
	for code, p := range problems {
		if want := fmt.Sprint(p.status); got[string(code)] != want {
			t.Errorf("%s is documented under %q, want %s", code, got[string(code)], want)
		}
	}
	if len(got) != len(problems) {
		t.Errorf("%d codes are documented, there are %d", len(got), len(problems))
	}
}

func TestContract_ScopesAndBodiesAreThoseOfTheOperations(t *testing.T) {
	c := loadContract(t)
	known := map[string]operation{}
	for _, op := range slices.Concat(publicOperations, adminOperations) {
		known[strings.ToLower(op.method)+" "+op.pattern] = op
	}
	n := 0
	c.eachOperation(func(path, verb string, op map[string]any) {
		n++
		have, ok := known[verb+" "+path]
		if !ok {
			t.Errorf("%s %s is not in operations.go", verb, path)
			return
		}
		want := map[string]any{"gatewaySecret": []any{}}
		if have.scope != "" {
			want = map[string]any{"apiKey": []any{string(have.scope)}}
		}
		if got := fmt.Sprint(op["security"]); got != fmt.Sprint([]any{want}) {
			t.Errorf("%s %s: security is %v, want %v", verb, path, got, want)
		}
		if got := op["requestBody"] != nil; got != (have.body != noBody) {
			t.Errorf("%s %s: has a body %v, want %v", verb, path, got, !got)
		}
	})
	if n != len(known) {
		t.Errorf("the contract has %d operations, operations.go %d", n, len(known))
	}
}

func TestContract_EveryExampleIsValid(t *testing.T) {
	c := loadContract(t)
	n := 0
	check := func(where string, content any, pointer string) {
		media, ok := content.(map[string]any)
		if !ok {
			return
		}
		examples := map[string]any{}
		if e, ok := media["example"]; ok {
			examples["example"] = e
		}
		if named, ok := media["examples"].(map[string]any); ok {
			for name, e := range named {
				examples[name] = e.(map[string]any)["value"]
			}
		}
		for name, e := range examples {
			n++
			if err := c.schema(t, pointer).Validate(e); err != nil {
				t.Errorf("%s, %s: %v", where, name, err)
			}
		}
	}
	c.eachOperation(func(path, verb string, op map[string]any) {
		check(verb+" "+path, c.at("paths", path, verb, "requestBody", "content", "application/json"),
			pointerTo("paths", path, verb, "requestBody", "content", "application/json", "schema"))
		for status := range op["responses"].(map[string]any) {
			check(verb+" "+path+" "+status, c.at("paths", path, verb, "responses", status, "content", "application/json"),
				pointerTo("paths", path, verb, "responses", status, "content", "application/json", "schema"))
		}
	})
	if n < 15 {
		t.Errorf("found %d examples, want 15 or more", n)
	}
}
