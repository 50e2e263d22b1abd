package strictjson

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestReader_FormIsJudgedAsEncodingJSONDoes(t *testing.T) {
	docs := []string{
		``, ` `, `null`, ` true `, `false`, `tru`, `nul`, `"a"`, `"a`, `"\u00e9"`, `"\u00e"`, `"\x"`, "\"\n\"", "\"\x7f\"", `-`, `-0`, `0`, `01`,
		`1.`, `1.5`, `.5`, `1e5`, `1E+5`, `1e`, `1e-`, `+1`, `{}`, `{ }`, `{,}`, `{"a"}`, `{"a":}`, `{"a":1}`, `{"a":1,}`, `{"a":1,"b":2}`,
		`{"a" : [ 1 , 2 ] }`, `[]`, `[ ]`, `[,]`, `[1,]`, `[1,2]`, `[1 2]`, `[[[]]]`, `[[[]]`, `[[[]]]]`, `[}`, `{]`, `{"a":[}]`, `[1]x`,
		`{a:1}`, `{1:1}`, `[{},[],{"a":{}}]`, "\xff", `"` + "\xc3\x28" + `"`, "[1,\u00a02]", `[1]` + "\x00", `{"a":1}{`, `"\"`, `"\\"`, `"\/"`,
	}
	for _, doc := range docs {
		r := NewReader([]byte(doc))
		r.Skip()
		got := r.End() == nil
		if want := json.Valid([]byte(doc)) && utf8.ValidString(doc); got != want {
			t.Errorf("%q: valid is %v, want %v (%v)", doc, got, want, r.End())
		}
	}
}

func FuzzReader(f *testing.F) {
	for _, s := range []string{`{"a":[1,2.5e3,"x\u00e9\ud83d\ude00",true,null,{}]}`, ` [ 1 , [ ] ] `, `"\ud800"`, `{"a":"b","a":"c"}`, "\xff", `[[[[`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		r := NewReader(doc)
		compact, ok := r.Value(1 << 20)
		valid := r.End() == nil
		if want := json.Valid(doc) && utf8.Valid(doc); valid != want {
			t.Fatalf("valid is %v, want %v", valid, want)
		}
		if !valid {
			return
		}
		var want bytes.Buffer
		if err := json.Compact(&want, doc); err != nil {
			t.Fatal(err)
		}
		if !ok || !bytes.Equal(compact, want.Bytes()) {
			t.Fatalf("compacted to %q, want %q", compact, want.Bytes())
		}
		if s := NewReader(doc); s.Type() == String {
			var want string
			if err := json.Unmarshal(doc, &want); err != nil {
				t.Fatal(err)
			}
			if got, ok := s.Text(Rule{}); ok && got != want {
				t.Fatalf("text is %q, want %q", got, want)
			}
		}
	})
}

func TestReader_SyntaxErrorTellsWhereAndNeverWhat(t *testing.T) {
	cases := []struct {
		doc    string
		offset int
	}{
		{`{"secret": hunter2}`, 11}, {`["hunter2"`, 10}, {`{"hunter2" 1}`, 11}, {`"hunter2`, 8}, {"\"hunter2\xff\"", 8}, {`1 hunter2`, 2},
		{`{"a": "hunter2\q"}`, 14},
	}
	for _, c := range cases {
		r := NewReader([]byte(c.doc))
		r.Skip()
		err, ok := r.End().(*SyntaxError)
		if !ok {
			t.Errorf("%s: no mistake of form", c.doc)
			continue
		}
		if err.Offset != c.offset {
			t.Errorf("%s: at byte %d, want %d", c.doc, err.Offset, c.offset)
		}
		if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error quotes: %v", c.doc, err)
		}
	}
}

func TestReader_DeepDocumentsNeitherRecurseNorPass(t *testing.T) {
	const depth = 200_000
	doc := strings.Repeat(`[`, depth) + strings.Repeat(`]`, depth)
	r := NewReader([]byte(doc))
	if _, ok := r.Value(60); ok || r.End() != nil {
		t.Fatalf("a document nested %d deep: ok %v, form %v", depth, ok, r.End())
	}
	if got := r.Errors(); len(got) != 1 || got[0].Code != TooDeep {
		t.Errorf("got %v, want too_deep", got)
	}
	for _, c := range []struct {
		doc  string
		deep int
		ok   bool
	}{{`1`, 0, true}, {`[]`, 0, false}, {`[]`, 1, true}, {`[{"a":[]}]`, 2, false}, {`[{"a":[]}]`, 3, true}, {`[[],[[]]]`, 2, false}} {
		if _, ok := NewReader([]byte(c.doc)).Value(c.deep); ok != c.ok {
			t.Errorf("%s at most %d deep: %v, want %v", c.doc, c.deep, ok, c.ok)
		}
	}
}

var testShape = NewShape(1, "name", "count", "flag", "list", "free")

// readTest reads an object of testShape.
func readTest(doc string) (*Reader, Set) {
	r := NewReader([]byte(doc))
	seen, _ := r.Object(testShape, func(i int) {
		switch i {
		case 0:
			r.Text(Rule{Least: 1, Most: 5, NoControl: true, NoC1: true})
		case 1:
			r.Int(-3, 10)
		case 2:
			r.Bool()
		case 3:
			r.Array(1, 3, func(int) { r.Word("red", "green") })
		case 4:
			r.Members(2, func(string) { r.True() })
		}
	})
	return r, seen
}

func TestReader_MistakesOfContent(t *testing.T) {
	cases := []struct {
		doc  string
		want []string
	}{
		{`{"name":"alice"}`, nil},
		{`{"n\u0061me":"alice"}`, nil},
		{`{"name":"alice","count":-3,"flag":false,"list":["red"],"free":{"a":true}}`, nil},
		{`{"name":"a","count":1.0e1}`, nil},
		{`{}`, []string{"/name required"}},
		{`[]`, []string{" wrong_type"}},
		{`{"name":5}`, []string{"/name wrong_type"}},
		{`{"name":""}`, []string{"/name empty"}},
		{`{"name":"alicea"}`, []string{"/name too_long"}},
		{`{"name":"\u0061lic\u00e9"}`, []string{"/name too_long"}},
		{`{"name":"a\u0000"}`, []string{"/name control_character"}},
		{`{"name":"a\u0085"}`, []string{"/name control_character"}},
		{`{"name":"a\ud800"}`, []string{"/name bad_text"}},
		{`{"name":"\udc00\ud800"}`, []string{"/name bad_text"}},
		{`{"name":"a","name":"b"}`, []string{"/name duplicate_member"}},
		{`{"name":"a","n\u0061me":"b"}`, []string{"/name duplicate_member"}},
		{`{"name":"a","other":[{"x":1}]}`, []string{"/other unknown_member"}},
		{`{"name":"a","a/b~c":1}`, []string{"/a~1b~0c unknown_member"}},
		{`{"name":"a","` + strings.Repeat("x", 65) + `":1}`, []string{" unknown_member"}},
		{`{"name":"a","count":"1"}`, []string{"/count wrong_type"}},
		{`{"name":"a","count":1.5}`, []string{"/count wrong_type"}},
		{`{"name":"a","count":11}`, []string{"/count too_large"}},
		{`{"name":"a","count":-4}`, []string{"/count too_small"}},
		{`{"name":"a","count":1e400}`, []string{"/count too_large"}},
		{`{"name":"a","count":-99999999999999999999}`, []string{"/count too_small"}},
		{`{"name":"a","flag":null}`, []string{"/flag wrong_type"}},
		{`{"name":"a","list":[]}`, []string{"/list too_few"}},
		{`{"name":"a","list":["red","blue",1]}`, []string{"/list/1 unknown_value", "/list/2 wrong_type"}},
		{`{"name":"a","list":["red","red","red","red"]}`, []string{"/list too_many"}},
		{`{"name":"a","free":{"x":false,"y/z":1}}`, []string{"/free/x unknown_value", "/free/y~1z wrong_type"}},
		{`{"name":"a","free":{"a":true,"b":true,"c":1,"d":1}}`, []string{"/free too_many"}},
		{`{"name":"a","free":{"\ud800":true}}`, []string{"/free bad_text"}},
		{`{"name":1,"count":"x","flag":2}`, []string{"/name wrong_type", "/count wrong_type", "/flag wrong_type"}},
	}
	for _, c := range cases {
		r, _ := readTest(c.doc)
		if err := r.End(); err != nil {
			t.Errorf("%s: %v", c.doc, err)
			continue
		}
		var got []string
		for _, e := range r.Errors() {
			got = append(got, e.Pointer+" "+string(e.Code))
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s:\n got %q\nwant %q", c.doc, got, c.want)
		}
	}
}

func TestReader_SetSaysWhatWasThere(t *testing.T) {
	_, seen := readTest(`{"name":"a","flag":true}`)
	if !seen.Has(0) || seen.Has(1) || !seen.Has(2) || seen.Count() != 2 {
		t.Errorf("got %b, want members 0 and 2", seen)
	}
}

func TestReader_MistakesAreBoundedAndJudgedByPart(t *testing.T) {
	r := NewReader([]byte(`[` + strings.Repeat(`1,`, 100) + `1]`))
	r.Array(0, 200, func(int) { r.Bool() })
	if got := len(r.Errors()); got != MaxErrors {
		t.Errorf("kept %d mistakes, want %d", got, MaxErrors)
	}
	r = NewReader([]byte(`[[1,1,1],[true],[` + strings.Repeat(`1,`, 50) + `1]]`))
	var got []int
	r.Array(0, 9, func(int) {
		mark := r.Mark()
		r.Array(0, 99, func(int) { r.Bool() })
		got = append(got, len(r.Since(mark)))
	})
	if want := []int{3, 0, MaxErrors}; !slices.Equal(got, want) {
		t.Errorf("mistakes by part %v, want %v", got, want)
	}
	if len(r.Errors()) != 0 {
		t.Errorf("mistakes of parts are left: %v", r.Errors())
	}
}

func TestReader_Base64IsStrict(t *testing.T) {
	cases := []struct {
		text string
		want string
		ok   bool
	}{
		{`""`, "", true}, {`"AA=="`, "\x00", true}, {`"aGk="`, "hi", true}, {`"aG\u006b="`, "hi", true}, {`"aGk"`, "", false}, {`"AB=="`, "", false},
		{`"a-_="`, "", false}, {`"aG\nk="`, "", false}, {`"aGk= "`, "", false}, {`5`, "", false},
	}
	for _, c := range cases {
		b, ok := NewReader([]byte(c.text)).Base64()
		if ok != c.ok || string(b) != c.want {
			t.Errorf("%s: got %q %v, want %q %v", c.text, b, ok, c.want, c.ok)
		}
	}
}

// TestReader_CutAnywhereEndsCleanly reads every prefix of a document: none may be taken for a whole one, or panic.
func TestReader_CutAnywhereEndsCleanly(t *testing.T) {
	doc := `{"name":"al\u0069c","count":-3,"flag":false,"list":["red","gr\u0065en"],"free":{"a":true,"b":true}}`
	for i := range doc {
		r, _ := readTest(doc[:i])
		if r.End() == nil {
			t.Errorf("the first %d bytes pass", i)
		}
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 20000 {
		b := []byte(doc)
		for range 1 + rng.IntN(3) {
			b[rng.IntN(len(b))] = `{}[]",:\u0 1ae`[rng.IntN(14)]
		}
		r, _ := readTest(string(b))
		if got, want := r.End() == nil, json.Valid(b); got != want {
			t.Fatalf("%s: valid is %v, want %v", b, got, want)
		}
	}
}

func BenchmarkValue(b *testing.B) {
	for _, size := range []int{128, 4096, 65536} {
		var sb strings.Builder
		sb.WriteString(`{"items":[`)
		for i := 0; sb.Len() < size-40; i++ {
			fmt.Fprintf(&sb, `{"n":%d,"t":"abcdefghijkl"},`, i)
		}
		sb.WriteString(`{}]}`)
		doc := []byte(sb.String())
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			b.SetBytes(int64(len(doc)))
			b.ReportAllocs()
			for b.Loop() {
				NewReader(doc).Value(60)
			}
		})
	}
}
