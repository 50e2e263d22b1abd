package catalog_test

import (
	"bytes"
	"reflect"
	"testing"

	"carillon/server/catalog"
	"carillon/server/push"
)

func TestDecodeProduct_OneOfBeforeSessionPoliciesHasNone(t *testing.T) {
	p, err := catalog.DecodeProduct([]byte(`{"v":1,"id":"shop","name":"Shop","shards":64,"revision":3}`))
	if err != nil || p.Sessions != nil || p.Name != "Shop" {
		t.Errorf("got %+v, %v, want the product without a policy", p, err)
	}
}

func TestDecodeProduct_PolicyIsReadAsItWasWrittenOrNotAtAll(t *testing.T) {
	policy, err := push.NewSessionPolicy(push.SessionRules{
		Classes: map[push.Platform]string{push.PlatformIOS: "mobile"}, Default: "rest",
		Rules: []push.SessionRule{{Scope: push.PerClass, Of: "mobile", Max: 2, OnExcess: push.RejectNew}},
	})
	if err != nil {
		t.Fatal(err)
	}
	stored, err := catalog.EncodeProduct(catalog.Product{ID: "shop", Shards: 64, Sessions: policy}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if p, err := catalog.DecodeProduct(stored); err != nil || !reflect.DeepEqual(p.Sessions, policy) {
		t.Errorf("got %+v, %v, want the policy that was stored", p.Sessions, err)
	}
	for was, is := range map[string]string{
		`"ios"`:        `"watch"`,
		`"class"`:      `"household"`,
		`"reject_new"`: `"ask"`,
		`"max":2`:      `"max":0`,
		`"of":`:        `"not":`,
	} {
		changed := bytes.Replace(stored, []byte(was), []byte(is), 1)
		if bytes.Equal(changed, stored) {
			t.Fatalf("%s is not in %s", was, stored)
		}
		if p, err := catalog.DecodeProduct(changed); push.KindOf(err) != push.KindInternal || err == nil {
			t.Errorf("with %s: got %+v, %v, want KindInternal", is, p.Sessions, err)
		}
	}
}
