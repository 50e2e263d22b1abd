package ws

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// rule is a demand that a section of RFC 6455 makes of a server, with what shows that it is met. docs/rfc6455.md lists
// them all.
type rule struct {
	section string
	name    string
	run     func(t *testing.T, cfg Config)
}

func (r rule) String() string { return r.section + " " + r.name }

func allRules() []rule {
	return slices.Concat(
		handshakeRules(), frameRules(), fragmentRules(), pingRules(), closeRules(), textRules(), limitRules(),
	)
}

func TestRFC6455(t *testing.T) {
	engines(t, func(t *testing.T, cfg Config) {
		for _, r := range allRules() {
			t.Run(r.String(), func(t *testing.T) { r.run(t, cfg) })
		}
	})
}

// The page names each rule as `section name`, in the row of that section, and no rule that is not there.
func TestRFC6455_DocumentAgreesWithTheRules(t *testing.T) {
	page, err := os.ReadFile("../../../docs/rfc6455.md")
	if err != nil {
		t.Fatal(err)
	}
	rules := make(map[string]bool)
	for _, r := range allRules() {
		if rules[r.String()] {
			t.Errorf("there are two rules %q", r)
		}
		rules[r.String()] = true
	}
	named := make(map[string]bool) // as "section: rule"
	row := regexp.MustCompile(`(?m)^\| (\d[\d.]*) \|.*$`)
	for _, m := range row.FindAllStringSubmatch(string(page), -1) {
		for _, n := range regexp.MustCompile("`(\\d+\\.[\\d.]* [^`]+)`").FindAllStringSubmatch(m[0], -1) {
			if !rules[n[1]] {
				t.Errorf("docs/rfc6455.md names %q, which is not there", n[1])
			}
			named[m[1]+": "+n[1]] = true
		}
	}
	for _, r := range allRules() {
		if !named[fmt.Sprintf("%s: %s", r.section, r)] {
			t.Errorf("docs/rfc6455.md lacks %q in the row of section %s", r, r.section)
		}
	}
	// Beside the rules the page names tests of this package.
	var sources strings.Builder
	names, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range names {
		if strings.HasSuffix(f.Name(), "_test.go") {
			b, err := os.ReadFile(f.Name())
			if err != nil {
				t.Fatal(err)
			}
			sources.Write(b)
		}
	}
	for _, n := range regexp.MustCompile("`((?:Test|Fuzz)\\w+)`").FindAllStringSubmatch(string(page), -1) {
		if !strings.Contains(sources.String(), "\nfunc "+n[1]+"(") {
			t.Errorf("docs/rfc6455.md names %s, which is not there", n[1])
		}
	}
}
