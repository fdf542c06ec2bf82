package storage

import (
	"fmt"

	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/wherry-project/wherry/internal/podspec"
)

func warnClass(c, _ *storagev1.StorageClass) []string {
	var out []string
	for i, term := range c.AllowedTopologies {
		for j, e := range term.MatchLabelExpressions {
			if text, old := podspec.LabelWarning(e.Key); old {
				out = append(out, fmt.Sprintf("%s: %s", field.NewPath("allowedTopologies").Index(i).Child("matchLabelExpressions").Index(j).Child("key"), text))
			}
		}
	}
	return out
}

func warnCapacity(c, _ *storagev1.CSIStorageCapacity) []string {
	if c.NodeTopology == nil {
		return nil
	}
	at := field.NewPath("nodeTopology")
	var out []string
	for i, e := range c.NodeTopology.MatchExpressions {
		if text, old := podspec.LabelWarning(e.Key); old {
			out = append(out, fmt.Sprintf("%s: %s is %s", at.Child("matchExpressions").Index(i).Child("key"), e.Key, text))
		}
	}
	return append(out, podspec.LabelKeyWarnings(c.NodeTopology.MatchLabels, func(key string) *field.Path { return at.Child("matchLabels").Child(key) })...)
}
