/** The panel beside a product in the Stripe dashboard. */
import type { ExtensionContextValue } from "@stripe/ui-extension-sdk/context";

import { useApi } from "../exchange";
import { ProductPanel } from "../panel/ProductPanel";
import OverviewView from "./OverviewView";

const ProductView = (context: ExtensionContextValue) => {
  const { api, identity } = useApi(context);
  const product = context.environment.objectContext?.id;
  if (!product) return <OverviewView {...context} />;
  return (
    <ProductPanel
      key={`${identity} ${product}`}
      api={api}
      product={product}
      locale={context.userContext.locale}
    />
  );
};

export default ProductView;
