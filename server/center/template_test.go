package center

import (
	"encoding/json"
	"testing"
	"unicode/utf8"

	"carillon/server/push"
)

// Whatever is told of a user, the body is JSON, and no longer than was said.
func FuzzTemplate(f *testing.F) {
	f.Add([]byte(`{"a":"{{name}}","b":["{{ n | none }}",1]}`), "Al \"Q\"", "\\\u2028<b>\x00")
	f.Add([]byte(`"{{user}}"`), "", "\xff")
	f.Add([]byte(`{"{{name}}":{"x":{}}}`), "x", "")
	f.Fuzz(func(t *testing.T, body []byte, name, n string) {
		p, err := parseTemplate(body)
		if !json.Valid(body) || err != nil || p.bind([]string{"name", "n"}) != "" {
			return
		}
		user := push.UserID("u\"\\\u00e9")
		if utf8.ValidString(name) && utf8.ValidString(n) && len(name) <= push.MaxUserID && push.UserID(name).Check() == nil {
			user = push.UserID(name)
		}
		got := p.fill(user, []string{name, n})
		if !json.Valid(got) {
			t.Fatalf("%q filled with %q and %q is %q", body, name, n, got)
		}
		if most := p.longest([]int{written(name), written(n)}); len(got) > most {
			t.Fatalf("%q has %d bytes, more than %d", got, len(got), most)
		}
	})
}
