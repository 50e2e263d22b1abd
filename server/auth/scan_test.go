package auth

import (
	"encoding/json"
	"reflect"
	"testing"
	"unicode/utf8"
)

// FuzzMembers compares the scanner with encoding/json on whatever is valid, and holds it to an end on whatever is not.
func FuzzMembers(f *testing.F) {
	for _, s := range []string{
		`{}`, `{"a":1}`, ` { "a" : [ 1 , {"b":"]}"} ] , "c\"d" : null } `, `{"a":"\\","b":-1.5e+3,"a":true}`, `[]`, `"x"`, `{"a"`,
		`{"a":}`, `{"a":1 2}`, `{,}`, `{"a":"\`, `{"a":[1,[2,{"b":[]}]],"c":""}`, `}{`, `{"a"::`, `null`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := map[string]json.RawMessage{}
		_, ok := members([]byte(s), func(name, value []byte) *Refusal {
			if n, ok := unquote(name); ok {
				got[n] = value
			}
			return nil
		})
		if !json.Valid([]byte(s)) || !utf8.ValidString(s) { // encoding/json replaces what is not UTF-8; claims refuse it
			return
		}
		var want map[string]json.RawMessage
		isObject := json.Unmarshal([]byte(s), &want) == nil && want != nil
		if ok != isObject {
			t.Fatalf("%q: an object: got %v, want %v", s, ok, isObject)
		}
		if isObject && !reflect.DeepEqual(got, want) {
			t.Fatalf("%q:\n got %q\nwant %q", s, got, want)
		}
		for _, v := range want {
			var list []json.RawMessage
			isList := json.Unmarshal(v, &list) == nil && list != nil
			var elems []json.RawMessage
			err := elements(v, func(e []byte) error {
				elems = append(elems, e)
				return nil
			})
			if (err == nil) != isList || len(elems) != len(list) || len(list) > 0 && !reflect.DeepEqual(elems, list) {
				t.Fatalf("%q: elements: got %q, %v, want %q", v, elems, err, list)
			}
		}
	})
}
